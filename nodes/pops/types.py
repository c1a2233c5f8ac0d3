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
        own_guidance: the scale that suits it, if its file says so.
        dtype: what it computes in.
    """

    name: str
    patcher: ModelPatcher
    config: OperatorConfig
    mode_name: str
    dtype: torch.dtype = torch.float32
    own_guidance: float | None = None

    @property
    def mode(self) -> Mode:
        return MODES[self.mode_name]

    @property
    def guidance(self) -> float:
        """The scale that suits it: its own, or the one that was published for its kind."""
        return self.mode.guidance if self.own_guidance is None else self.own_guidance
