"""PartCraft as nodes."""
from __future__ import annotations

from .apply import ApplyPartCraft
from .attention import PartAttention, PartAttentionMaps
from .clusters import LoadClusters, SaveClusters
from .dino import LoadDino
from .find import FindParts
from .label import LabelParts
from .loading import LoadPartCraft, PartWord
from .measure import MeasurePartWords
from .train import TrainPartCraft

NODES = (
    LoadPartCraft, ApplyPartCraft, PartWord, LoadDino, FindParts, LabelParts, SaveClusters, LoadClusters,
    PartAttention, PartAttentionMaps, MeasurePartWords,
    TrainPartCraft,
)
