"""The creature domain: miniature models, drawings and measures."""
from __future__ import annotations

from .datasets import CreatureDataset
from .examples import ExamplePictures
from .instruct import LoadCreatureInstruct
from .loading import LoadCreatureModels, LoadCreatureSD15
from .measure import MeasureCreatures
from .parts import CreatureKinds, CreatureParts
from .scenes import CreatureScene

NODES = (
    LoadCreatureModels, LoadCreatureSD15, LoadCreatureInstruct, CreatureParts, CreatureScene, CreatureKinds,
    CreatureDataset, MeasureCreatures, ExamplePictures,
)
