"""IP+ tokens: what a picture is to an IP-Adapter, an IP-Prior and the UNet that renders it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .concepts import Concepts
from .directions import CLIP_SPACE, TOKEN_SPACE


@dataclass(frozen=True)
class Tokens(Concepts):
    """A batch of IP+ tokens, one set per picture or concept.

    Attributes:
        values: `[B, 16, D]`; those of a base IP-Adapter are fewer.
        uncond: tokens of an all-zero pixel tensor (a gray picture) `[1, 16, D]`, for SDXL's negative branch.
        features: what the resampler made them from, `[B, N, E]`; None unless a picture was encoded.
    """

    uncond: Tensor
    features: Tensor | None = None
    what: ClassVar[str] = "IP+ tokens"

    def rows(self) -> dict[str, Tensor]:
        """See `Concepts`."""
        return super().rows() | ({} if self.features is None else {"features": self.features})

    def check_alike(self, other: Tokens) -> None:
        """Raise ValueError unless both have one width and, as far as is known, one IP-Adapter."""
        if other.width != self.width or self.of_another_adapter(other):
            raise ValueError(
                f"Expected tokens of one IP-Adapter, got those from {self.source} (width {self.width}) and "
                f"those from {other.source} (width {other.width}), which belong to different IP-Adapters. "
                "Make all with the same one."
            )

    def direction_spaces(self) -> tuple[str, ...]:
        """See `Concepts`."""
        return TOKEN_SPACE, CLIP_SPACE

    def inherited(self, sources: Sequence[Tokens]) -> dict[str, Any]:
        """See `Concepts`: no picture was encoded as what is made of tokens."""
        return {"features": None}
