"""In what the measures are counted."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """How numbers and their differences are written.

    Attributes:
        after: what follows a number, and what follows a difference.
        scale: what numbers are multiplied by.
        less_is_better: a bar is then the most that is allowed.
    """

    after: tuple[str, str]
    scale: float = 1
    less_is_better: bool = False

    def text(self, value: float) -> str:
        """A number: "97.3%"."""
        return f"{value * self.scale:.1f}{self.after[0]}"

    def difference(self, value: float) -> str:
        """A difference of two numbers: "+1.2 points"."""
        return f"{value * self.scale:+.1f}{self.after[1]}"


SHARE = Unit(("%", " points"), scale=100)
DECIBELS = Unit((" dB", " dB"))
LEVELS = Unit(("/255", "/255"), less_is_better=True)
RATE = Unit((" a second", " a second"))
