"""Object insertion as nodes."""
from __future__ import annotations

from .encoding import EncodeObject, LoadEmbeddingOptimizer
from .insert import InsertObject, PutBack
from .models import InsertionSchedule, PatchBias
from .train import TrainEmbeddingOptimizer

NODES = (
    LoadEmbeddingOptimizer, EncodeObject, InsertObject, InsertionSchedule, PutBack, PatchBias,
    TrainEmbeddingOptimizer,
)
