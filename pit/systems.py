"""The systems of the pack, one line each; all that the rest must know about them is in their records."""
from __future__ import annotations

from .demo.published import CREATURES
from .files.published import System, register
from .object_insertion.published import OBJECT_INSERTION
from .partcraft.published import PARTCRAFT
from .parts2whole.published import PARTS2WHOLE
from .piece_it_together.published import PIECE_IT_TOGETHER
from .pops.published import POPS

SYSTEMS: tuple[System, ...] = (
    PIECE_IT_TOGETHER,
    OBJECT_INSERTION,
    PARTCRAFT,
    PARTS2WHOLE,
    CREATURES,
    POPS,
)

# On import, so that it has happened before anything else in the package can ask what a file is.
for system in SYSTEMS:
    register(system)
