"""Creatures as a dataset for an IP-LoRA, in the published layout: in scenes, or as character sheets."""
from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from .creature import ALL_SCENE_WORDS, Creature, sample_creature
from .render import draw_creature, draw_part, draw_shape
from .sizes import PICTURE_SIZE

SHEET_CAPTION = "a creature and the creature"  # of words that the miniature text encoders know
LARGE, SMALL = 80, 30  # of the sheet's 128 pixels: the creature, and each of four parts
CORNERS = ((2, 14), (96, 14), (2, 84), (96, 84))


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
    """`count` character sheets: the creature large in the middle, up to four of its parts around it.

    Raises:
        OSError: the folder cannot be written.
    """
    for index in range(count):
        creature = sample_creature(random.Random(f"sheets/{seed}/{index}"), 0.0)
        save_sample(folder, f"{seed}-{index:05d}", draw_sheet(creature), creature, SHEET_CAPTION)
        on_progress(index + 1, count)


def draw_sheet(creature: Creature) -> Image.Image:
    """A character sheet (RGB) on white."""
    sheet = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), "white")
    middle = (PICTURE_SIZE - LARGE) // 2
    whole = draw_shape(creature, PICTURE_SIZE, 2).resize((LARGE, LARGE), Image.Resampling.LANCZOS)
    sheet.paste(whole, (middle, middle), whole)
    shown = [part for part in ("horns", "wings", "tail", "arms", "legs", "ears") if part in creature.parts]
    for part, corner in zip(shown, CORNERS, strict=False):
        sheet.paste(draw_part(creature, part, SMALL), corner)
    return sheet


def save_sample(folder: Path, name: str, target: Image.Image, creature: Creature, caption: str) -> None:
    """Target, caption, and the creature on white as the reference."""
    for place in ("targets", "refs"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    shape = draw_shape(creature, PICTURE_SIZE, 2)
    plain = Image.new("RGB", shape.size, "white")
    plain.paste(shape, (0, 0), shape)
    plain.save(folder / "refs" / f"{name}_ref.png")
    (folder / "targets" / f"{name}.txt").write_text(caption, encoding="utf-8")
    target.save(folder / "targets" / f"{name}.png")
