"""The socket types of object insertion, and what travels through them."""
from __future__ import annotations

from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.object_insertion.embedding_optimizer import AnyOptimizer

CATEGORY = "Piece it Together/Object Insertion"

OptimizerType = io.Custom("PIT_EMBEDDING_OPTIMIZER")
"""Carries a `ManagedOptimizer`."""
PlaceType = io.Custom("PIT_PLACE")
"""Carries a `pit.object_insertion.scene.Place`."""


@dataclass(frozen=True)
class ManagedOptimizer:
    """An Embedding Optimizer under ComfyUI's memory management; `name` is what error messages call it."""

    name: str
    patcher: ModelPatcher

    @property
    def module(self) -> AnyOptimizer:
        return self.patcher.model
