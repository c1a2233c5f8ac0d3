"""Which areas of a picture count as its parts."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST_PART = 0.015  # of the picture, as published


class UnevenGroundError(ValueError):
    """The picture's border shows no plain ground."""


@dataclass(frozen=True)
class PartRules:
    """The published rules for masks of parts.

    Attributes:
        smallest, largest: share of the picture that a part covers, exclusive.
        most: how many parts of one picture are kept, the smallest first.
        drop_largest: leave out the largest mask: the whole product, with a segmenter that finds everything.
        drop_border: leave out masks that touch the picture's border.
    Raises:
        ValueError: nothing would get through.
    """

    smallest: float = SMALLEST_PART
    largest: float = 0.3
    most: int = 8
    drop_largest: bool = False
    drop_border: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.smallest < self.largest <= 1 or self.most < 1:
            raise ValueError(
                "Expected 0 <= smallest < largest <= 1 (shares of the picture) and at least one part, got "
                f"smallest {self.smallest:g}, largest {self.largest:g} and at most {self.most} parts. "
                "Widen the range."
            )

    def allow(self, mask: np.ndarray) -> bool:
        """Whether the area of a mask `[H,W]` bool lies within the range."""
        return bool(self.smallest < mask.mean() < self.largest)


DEFAULT_RULES = PartRules()
