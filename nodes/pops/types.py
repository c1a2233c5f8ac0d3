"""The socket types of pOps, and what travels through them."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.pops.files import OperatorConfig
from ...pit.pops.modes import MODES, Mode

CATEGORY = "Piece it Together/pOps"

OperatorType = io.Custom("PIT_OPERATOR")
"""Carries a `ManagedOperator`."""


@dataclass(frozen=True)
class ManagedOperator:
    """An operator under ComfyUI's memory management.

    Attributes:
        name: what error messages call it.
        patcher: of a `PriorTransformer`.
        mode_name: one of `MODES`.
        dtype: what it computes in.
    """

    name: str
    patcher: ModelPatcher
    config: OperatorConfig
    mode_name: str
    dtype: torch.dtype = torch.float32

    @property
    def mode(self) -> Mode:
        return MODES[self.mode_name]
