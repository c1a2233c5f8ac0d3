"""Parts2Whole as nodes."""
from __future__ import annotations

from .apply import ApplyParts2Whole
from .clothes import ClothesParser
from .loading import LoadParts2Whole
from .measure import MeasurePictures
from .pose import PoseMap
from .references import EncodeReferences, ReferencePart
from .train import TrainParts2Whole

NODES = (
    LoadParts2Whole, ReferencePart, EncodeReferences, PoseMap, ApplyParts2Whole, ClothesParser,
    MeasurePictures, TrainParts2Whole,
)
