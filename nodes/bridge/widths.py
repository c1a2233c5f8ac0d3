"""Widths of UNets that ComfyUI has not foreseen."""
from __future__ import annotations

from fractions import Fraction


class WidthFactor(Fraction):
    """How many times as wide as the first level another one is: times a width, it is a width again."""

    # ComfyUI multiplies widths with factors, which are whole numbers in all models that it knows.
    def __mul__(self, width: int) -> int:
        return int(super().__mul__(width))

    __rmul__ = __mul__
