"""The socket types of Piece it Together, and what travels through them."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.piece_it_together.prior_files import PriorConfig
from ..bridge.sockets import ManagedAdapter

CATEGORY = "Piece it Together"

PriorType = io.Custom("PIT_PRIOR")
"""Carries a `ManagedPrior`."""
PartsType = io.Custom("PIT_PARTS")
"""Carries a `pit.piece_it_together.slots.Parts`."""
LayerWeightsType = io.Custom("PIT_LAYER_WEIGHTS")
"""Carries a `pit.ip_adapter.layer_weights.LayerWeights`."""

DatasetType = io.Custom("PIT_DATASET")
"""Carries a `pit.piece_it_together.training.dataset.Dataset`: pictures of targets and parts in a folder."""
TokenCacheType = io.Custom("PIT_TOKEN_CACHE")
"""Carries the `Path` of a token cache."""
PreviewType = io.Custom("PIT_TRAINING_PREVIEW")
"""Carries a `TrainingPreview`."""


@dataclass(frozen=True, kw_only=True)
class ManagedIPAdapter(ManagedAdapter):
    """An IP-Adapter in two patchers, so that the sampler loads the attention weights without the resampler.

    Attributes:
        resampler: patcher of a `Resampler`.
    """

    resampler: ModelPatcher

    @property
    def feature_dim(self) -> int:
        """Width of the image features that the resampler reads."""
        return self.resampler.model.proj_in.in_features


@dataclass(frozen=True)
class ManagedPrior:
    """An IP-Prior under ComfyUI's memory management.

    Attributes:
        name: what error messages call it.
        patcher: of an `IPPrior`.
        dtype: what it computes in.
        preview: patcher of a model that turns its tokens into small pictures, by a method `pictures(tokens)`.
    """

    name: str
    patcher: ModelPatcher
    config: PriorConfig
    dtype: torch.dtype = torch.float32
    preview: ModelPatcher | None = None
