"""The kinds of operators: what each takes, and the settings that were published with it."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

WORDS, PICTURES = "words", "pictures"


@dataclass(frozen=True)
class Mode:
    """What an operator was trained for.

    Attributes:
        folder: a word in the published paths, by which files are recognized.
        takes: `PICTURES`, or `WORDS` behind the first picture.
        slots: what the pictures are, in their order.
        most: how many pictures it takes.
        guidance: the published scale.
    """

    folder: str
    takes: str
    slots: tuple[str, ...]
    most: int
    guidance: float


MOST_PARTS = 12  # crops that the operator of clothes takes
MODES = {
    "texture": Mode("texturing", PICTURES, ("the object", "the texture"), 2, 8.0),
    "union": Mode("union", PICTURES, ("the first thing", "the second thing"), 2, 8.0),
    "scene": Mode("scene", PICTURES, ("the object", "the scene"), 2, 1.0),
    "instruct": Mode("instruct", WORDS, ("the object",), 1, 1.0),
    "clothes": Mode("clothes", PICTURES, ("the parts",), MOST_PARTS, 1.0),
}


def mode_named(name: str) -> str:
    """The name of a mode if it is one, else ""."""
    return name if name in MODES else ""


def mode_in(path: str) -> str:
    """The mode that a path tells, such as `texturing/learned_prior.pth`; "" if none or several are in it."""
    # The innermost part that tells counts: a folder may be called after all of them.
    for part in reversed(PurePath(path.replace("\\", "/").lower()).parts):
        found = [name for name, mode in MODES.items() if name in part or mode.folder in part]
        if found:
            return found[0] if len(found) == 1 else ""
    return ""
