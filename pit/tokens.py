"""What travels between the nodes: IP+ tokens, and the reference encodings of the same encoder."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A batch of IP+ tokens, one set per picture or concept.

    Attributes:
        values: `[B, 16, D]`.
        uncond: tokens of an all-zero pixel tensor (a grey picture) `[1, 16, D]`, for SDXL's negative branch.
        source: where the tokens come from, in words for error messages.
    """

    values: Tensor
    uncond: Tensor
    source: str

    @property
    def width(self) -> int:
        return self.values.shape[-1]


@dataclass(frozen=True)
class Parts:
    """An ordered set of part slots for the IP-Prior.

    Attributes:
        slots: tokens of each slot `[P, 16, D]`; a white slot holds the empty tokens.
        empty: tokens of the white picture `[1, 16, D]`.
        uncond, source: as in `Tokens`.
    """

    slots: Tensor
    empty: Tensor
    uncond: Tensor
    source: str

    @property
    def width(self) -> int:
        return self.slots.shape[-1]

    def sequence(self, count: int) -> Tensor:
        """The prior's condition for `count` concepts: `[count, 16 P, D]`."""
        return self.slots.flatten(0, 1).expand(count, -1, -1)
