"""Creatures as a dataset folder: an endless source of targets and parts that needs no model."""
from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ..images import on_white
from ..training.make_parts import save_concept
from .creature import Creature, sample_creature
from .render import draw_creature, draw_shape
from .sizes import PICTURE_SIZE

PNG_END = b"IEND\xaeB`\x82"


def write_creature_dataset(
    folder: Path, count: int, seed: int, coherence: float, on_progress: Callable[[int, int], None]
) -> None:
    """Draw `count` creatures on white and their parts into `folder/target` and `folder/parts`.

    Creature i depends on (seed, coherence, i) alone and carries them in its name, so a larger count extends
    the folder, and other seeds may share it. Whole concepts that are there already are not drawn again.

    Args:
        coherence: as in `sample_creature`; low values mix the species.
        on_progress: called with (concepts there, `count`) after each; may raise to stop, nothing is lost.
    Raises:
        ValueError: a count below 1, or a coherence outside 0..1.
        OSError: the folder cannot be written.
    """
    if count < 1:
        raise ValueError(f"Expected at least one creature to draw, found a count of {count}.")
    for index in range(count):
        creature = sample_creature(random.Random(f"{seed}/{index}"), coherence)
        name = f"creature-{seed}-{float(coherence)}-{index:05d}"
        if not _is_whole(folder, name, len(creature.parts)):
            parts = [draw_part_crop(creature, part) for part in creature.parts]
            save_concept(folder, name, draw_creature(creature, PICTURE_SIZE), parts)
        on_progress(index + 1, count)


def draw_part_crop(creature: Creature, part: str) -> Image.Image:
    """One part as large as in the picture of the whole, on white, cropped to its bounding box (RGB).

    Published parts are cut out so too; these are not hidden by what lies before them.
    """
    shape = draw_shape(creature, PICTURE_SIZE, 2, only=part)
    return on_white(shape.crop(shape.getbbox()))


def _is_whole(folder: Path, name: str, parts: int) -> bool:
    """The target is written last: if its file is complete, so are those of the parts."""
    target = folder / "target" / f"{name}.png"
    there = all((folder / "parts" / name / f"{number}.png").is_file() for number in range(parts))
    return there and target.is_file() and target.read_bytes().endswith(PNG_END)
