"""The systems of the pack, a line each: all that the rest must know of them is in their records."""
from __future__ import annotations

from .demo.published import CREATURES
from .files.published import System, register
from .piece_it_together.published import PIECE_IT_TOGETHER

SYSTEMS: tuple[System, ...] = (
    PIECE_IT_TOGETHER,
    CREATURES,
)

for system in SYSTEMS:
    register(system)
