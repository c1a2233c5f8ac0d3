"""The creature domain: miniature models, drawings and measures."""
from __future__ import annotations

from .datasets import CreatureDataset
from .examples import ExamplePictures
from .instruct import LoadCreatureInstruct
from .loading import LoadCreatureModels, LoadCreatureSD15
from .measure import MeasureCreatures
from .parts import CreatureKinds, CreatureParts
from .parts2whole import LoadCreatureParts2Whole
from .scenes import CreatureScene
from .species import CreatureSpecies

NODES = (
    LoadCreatureModels, LoadCreatureSD15, LoadCreatureInstruct, LoadCreatureParts2Whole,
    CreatureParts, CreatureScene, CreatureKinds, CreatureSpecies, CreatureDataset, MeasureCreatures,
    ExamplePictures,
)
