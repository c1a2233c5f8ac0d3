"""Creatures as a dataset for an IP-LoRA, in the published layout: in scenes, or as character sheets."""
from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from ..images import contact_sheet, on_white
from .creature import ALL_SCENE_WORDS, PARTS, Creature, sample_creature
from .render import draw_creature, draw_parts, draw_shape
from .sizes import PICTURE_SIZE

SHEET_CAPTION = "a creature and the creature"  # of words that the miniature text encoders know
# Four views of a creature, by the parts that each shows: from the front, from behind, its limbs, its head.
VIEWS = (
    set(PARTS), set(PARTS) - {"eyes", "mouth"}, {"wings", "tail", "arms", "legs"},
    {"ears", "horns", "eyes", "mouth"},
)


def write_scene_dataset(
    folder: Path, count: int, seed: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """`count` creatures in all scenes, those included that the shipped models do not know.

    Raises:
        OSError: the folder cannot be written.
    """
    for index in range(count):
        rng = random.Random(f"scenes/{seed}/{index}")
        scene = rng.choice(list(ALL_SCENE_WORDS))
        creature = sample_creature(rng, 0.0, scene=scene)
        caption = f"a creature{ALL_SCENE_WORDS[scene]}"
        save_sample(folder, f"{seed}-{index:05d}", draw_creature(creature, PICTURE_SIZE), creature, caption)
        on_progress(index + 1, count)


def write_sheet_dataset(
    folder: Path, count: int, seed: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """`count` character sheets of 256 x 256.

    Raises:
        OSError: the folder cannot be written.
    """
    for index in range(count):
        creature = sample_creature(random.Random(f"sheets/{seed}/{index}"), 0.0)
        save_sample(folder, f"{seed}-{index:05d}", draw_sheet(creature), creature, SHEET_CAPTION)
        on_progress(index + 1, count)


def draw_sheet(creature: Creature) -> Image.Image:
    """A character sheet (RGB) on white: four views, two by two, of which that from behind is mirrored."""
    views = [draw_parts(creature, parts, PICTURE_SIZE) for parts in VIEWS]
    views[1] = ImageOps.mirror(views[1])
    return contact_sheet([on_white(view) for view in views], 2, PICTURE_SIZE)


def save_sample(folder: Path, name: str, target: Image.Image, creature: Creature, caption: str) -> None:
    """Target, caption, and the creature on white as the reference."""
    for place in ("targets", "refs"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    shape = draw_shape(creature, PICTURE_SIZE, 2)
    on_white(shape).save(folder / "refs" / f"{name}_ref.png")
    (folder / "targets" / f"{name}.txt").write_text(caption, encoding="utf-8")
    target.save(folder / "targets" / f"{name}.png")
