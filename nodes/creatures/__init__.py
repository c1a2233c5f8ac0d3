"""The creature domain: miniature models, drawings and measures."""
from __future__ import annotations

from .datasets import CreatureDataset
from .examples import ExamplePictures
from .measure import MeasureCreatures
from .models import CreatureKinds, CreatureParts, LoadCreatureModels
from .scenes import CreatureScene

NODES = (
    LoadCreatureModels, CreatureParts, CreatureScene, CreatureKinds, CreatureDataset, MeasureCreatures,
    ExamplePictures,
)
