"""Creatures as dataset folders: an endless source of targets and parts that needs no model."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..files.lock import only_process
from ..files.pictures import save_picture
from ..files.whole import clean_leftovers, write_whole
from ..images import contact_sheet, on_white
from ..piece_it_together.training.make_parts import save_concept
from .drawing.creature import (
    ALL_SCENE_WORDS,
    PARTS,
    SCENE_WORDS,
    TAUGHT_SCENE_WORDS,
    Creature,
    sample_creature,
)
from .drawing.draw import draw_creature, draw_parts, draw_shape
from .drawing.pose import BACK, SIDE, Pose
from .models.sizes import PICTURE_SIZE

# The last chunk of every PNG; a file that was cut off while it was written lacks it.
PNG_END = b"IEND\xaeB`\x82"


def write_creature_dataset(
    folder: Path, count: int, seed: int, coherence: float, on_progress: Callable[[int, int], None]
) -> None:
    """Draw `count` creatures on white and their parts into `folder/target` and `folder/parts`.

    Creature i depends only on (seed, coherence, i), and its name carries all three, so a larger count extends
    the folder, and several seeds can share it. Concepts that are already complete are not drawn again.

    Args:
        coherence: as in `sample_creature`; low values mix the species.
        on_progress: called with (concepts done, `count`) after each; may raise to stop, which loses nothing.
    Raises:
        ValueError: a count below 1, or a coherence outside 0..1.
        OSError: the folder cannot be written.
        InUseError: another process writes to the folder.
    """
    if count < 1:
        raise ValueError(f"Expected at least one creature to draw, got a count of {count}.")
    with only_process(folder):
        clean_leftovers(folder / "target")
        for index in range(count):
            # Python hashes a text seed, so that neighboring seeds and numbers give unrelated creatures.
            creature = sample_creature(random.Random(f"{seed}/{index}"), coherence)
            # As a float: 1 and 1.0 are the same coherence and must not be drawn twice.
            name = f"creature-{seed}-{float(coherence)}-{index:05d}"
            if not _is_complete(folder, name, len(creature.parts)):
                parts = [draw_part_crop(creature, part) for part in creature.parts]
                save_concept(folder, name, draw_creature(creature, PICTURE_SIZE), parts)
            on_progress(index + 1, count)


def draw_part_crop(creature: Creature, part: str) -> Image.Image:
    """One part, as large as in the picture of the whole, on white, cropped to its bounding box (RGB).

    The published parts are cut out in the same way; unlike those, these are not hidden by what lies in front.
    """
    shape = draw_shape(creature, PICTURE_SIZE, only=part)
    return on_white(shape.crop(shape.getbbox()))


def _is_complete(folder: Path, name: str, parts: int) -> bool:
    """Whether a concept is there; its target is written last, so if that is complete, the parts are too."""
    target = folder / "target" / f"{name}.png"
    there = all((folder / "parts" / name / f"{number}.png").is_file() for number in range(parts))
    return there and target.is_file() and target.read_bytes().endswith(PNG_END)


# Words that the miniature text encoders know, in an order that no caption of their training has.
SHEET_CAPTION = "a creature and the creature"
# Four views of a creature: from the front, from its right, from behind, and with raised limbs.
SHEET_POSES = (Pose(), Pose(view=SIDE), Pose(view=BACK), Pose(arms=0.8, wings=0.8))
# Of the pictures of the scenes' IP-LoRA. One that sees mostly new scenes forgets the others.
NEW_SCENES = 0.45


def write_scene_dataset(
    folder: Path, count: int, seed: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Draw `count` creatures in all scenes, including those that the shipped models do not know.

    Raises:
        OSError: the folder cannot be written.
    """
    for index in range(count):
        rng = random.Random(f"scenes/{seed}/{index}")
        scene = rng.choice(list(TAUGHT_SCENE_WORDS if rng.random() < NEW_SCENES else SCENE_WORDS))
        # Free mixtures, here and in the sheets: an IP-LoRA must not learn the species along with the rest.
        creature = sample_creature(rng, 0.0, scene=scene)
        caption = f"a creature{ALL_SCENE_WORDS[scene]}"
        save_sample(folder, f"{seed}-{index:05d}", draw_creature(creature, PICTURE_SIZE), creature, caption)
        on_progress(index + 1, count)


def write_sheet_dataset(
    folder: Path, count: int, seed: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Draw `count` character sheets of 512 x 512 pixels.

    Raises:
        OSError: the folder cannot be written.
    """
    for index in range(count):
        creature = sample_creature(random.Random(f"sheets/{seed}/{index}"), 0.0)
        save_sample(folder, f"{seed}-{index:05d}", draw_sheet(creature), creature, SHEET_CAPTION)
        on_progress(index + 1, count)


def draw_sheet(creature: Creature) -> Image.Image:
    """A character sheet on white: the four `SHEET_POSES`, two by two (RGB)."""
    views = [draw_parts(replace(creature, pose=pose), PARTS, PICTURE_SIZE) for pose in SHEET_POSES]
    return contact_sheet([on_white(view) for view in views], 2, PICTURE_SIZE)


def save_sample(folder: Path, name: str, target: Image.Image, creature: Creature, caption: str) -> None:
    """Write one sample of an IP-LoRA: target, caption, and as its reference the creature on white."""
    for place in ("targets", "refs"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    shape = draw_shape(creature, PICTURE_SIZE)
    save_picture(folder / "refs" / f"{name}_ref.png", on_white(shape))
    write_whole(folder / "targets" / f"{name}.txt", caption.encode())
    save_picture(folder / "targets" / f"{name}.png", target)
