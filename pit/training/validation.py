"""The result of a validation: the loss, over all times and at each of them."""
from __future__ import annotations

from dataclasses import dataclass

# The middles of eight equal intervals: the mean over them is the midpoint rule for the mean over 0..1.
TIMES = tuple((i + 0.5) / 8 for i in range(8))


@dataclass(frozen=True)
class Validation:
    """Mean velocity loss, over all times and at each of `TIMES` (NaN where no sample has that time)."""

    loss: float
    by_time: tuple[float, ...]
