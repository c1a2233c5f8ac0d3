"""The drawn data set: pictures, encoder views, views of parts and labels, in memory-mapped arrays."""
from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...files.whole import write_whole
from ..drawing.composition import Composition, compose, draw_composition
from ..drawing.creature import ATTRIBUTES, PARTS, UNSEEN, Creature, labels
from ..drawing.draw import draw_part, draw_shape, encoder_view, seen_by_encoder
from ..drawing.pose import NEUTRAL, Pose, sample_pose
from ..drawing.things import sample_thing
from ..drawing.variety import random_ground, varied_creature
from ..models.sizes import ENCODER_SIZE, PICTURE_SIZE

PART_VIEWS = 5
CHUNK = 500  # creatures between two updates of the manifest, which is what an interruption loses at most
# What a picture shows, and how often.
ALONE, WITH_THINGS, POSED, THINGS, EMPTY = KINDS = ("alone", "with things", "posed", "things", "empty")
KIND_SHARES = (0.42, 0.20, 0.18, 0.13, 0.07)
TWO_THINGS = 0.25
ARRAYS = {
    "pictures": ((PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8),  # see `training_picture`
    "clean": ((PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8),  # the creature alone, unposed, on white
    "views": ((ENCODER_SIZE, ENCODER_SIZE, 3), np.uint8),  # what the encoder sees of `clean`
    "picture_views": ((ENCODER_SIZE, ENCODER_SIZE, 3), np.uint8),  # and of `pictures`
    "patches": ((ENCODER_SIZE, ENCODER_SIZE, 3), np.uint8),  # out of the body
    "part_views": ((PART_VIEWS, ENCODER_SIZE, ENCODER_SIZE, 3), np.uint8),
    "part_kinds": ((PART_VIEWS,), np.int8),
    "labels": ((len(ATTRIBUTES),), np.int8),
    "part_labels": ((PART_VIEWS, len(ATTRIBUTES)), np.int8),
}
NO_PART = -1  # a slot of `part_views` that is empty because the creature has fewer parts


@dataclass(frozen=True)
class TrainingPicture:
    """One picture of the data set as data.

    Attributes:
        kind: one of `KINDS`.
        creature: of this number, unposed, whether the picture shows it or not.
    """

    kind: str
    creature: Creature
    composition: Composition


def training_creature(seed: int, index: int) -> Creature:
    """Creature number `index` of the data set with this seed, whatever the size of the set."""
    return varied_creature(random.Random(f"{seed}/{index}"))


def training_picture(seed: int, index: int) -> TrainingPicture:
    """Picture number `index` of the data set with this seed: a creature, things or both, somewhere."""
    rng = random.Random(f"{seed}/{index}/picture")
    creature = training_creature(seed, index)
    kind = rng.choices(KINDS, KIND_SHARES)[0]
    count = 0 if kind in (ALONE, POSED, EMPTY) else 2 if rng.random() < TWO_THINGS else 1
    things = [sample_thing(rng) for _ in range(count)]
    shown = None if kind in (THINGS, EMPTY) else replace(creature, pose=clear_pose(rng, kind))
    scene, ground = random_ground(rng)
    return TrainingPicture(kind, creature, compose(shown, things, scene=scene, ground=ground, rng=rng))


def clear_pose(rng: random.Random, kind: str) -> Pose:
    """A pose where one is asked for."""
    return sample_pose(rng) if kind == POSED else NEUTRAL


def draw_chunk(seed: int, start: int, count: int) -> dict[str, np.ndarray]:
    """Rows `start` to `start + count - 1` of every array."""
    rows = {name: np.empty((count, *shape), dtype) for name, (shape, dtype) in ARRAYS.items()}
    for offset in range(count):
        for name, value in draw_row(training_picture(seed, start + offset), seed, start + offset).items():
            rows[name][offset] = value
    return rows


def draw_row(picture: TrainingPicture, seed: int, index: int) -> dict[str, np.ndarray]:
    """One row of every array; missing part views are white, of kind `NO_PART`."""
    # Its own generator, so that the views of parts do not depend on how the picture was drawn.
    rng = random.Random(f"{seed}/{index}/parts")
    creature = picture.creature
    shape = draw_shape(creature, PICTURE_SIZE)
    clean = Image.new("RGB", shape.size, "white")
    clean.paste(shape, (0, 0), shape)
    drawn = draw_composition(picture.composition, PICTURE_SIZE)
    parts = rng.sample(creature.parts, min(PART_VIEWS, len(creature.parts)))
    views = np.full(ARRAYS["part_views"][0], 255, np.uint8)
    # In use, parts fill about 83% of what the encoder sees: 90% of their picture, placed at 92% on white.
    for slot, part in enumerate(parts):
        views[slot] = draw_part(creature, part, ENCODER_SIZE, share=rng.uniform(0.66, 0.96), rng=rng)
    kinds = [PARTS.index(part) for part in parts]
    seen = [labels(creature, part) for part in parts]
    missing = PART_VIEWS - len(parts)
    return {
        "pictures": np.asarray(drawn),
        "clean": np.asarray(clean),
        "views": np.asarray(encoder_view(shape)),
        "picture_views": np.asarray(seen_by_encoder(drawn)),
        "patches": np.asarray(draw_patch(creature, rng)),
        "part_views": views,
        "part_kinds": np.array(kinds + [NO_PART] * missing),
        "labels": np.array(labels(creature)),
        "part_labels": np.array(seen + [[UNSEEN] * len(ATTRIBUTES)] * missing),
    }


def draw_patch(creature: Creature, rng: random.Random) -> Image.Image:
    """A square out of the middle of a body, with its color and pattern and nothing else, 64 x 64 (RGB)."""
    drawn = draw_shape(creature, PICTURE_SIZE, only="body")
    left, top, right, bottom = drawn.getbbox()
    # Stripes are at the sides and spots are few: a smaller square would miss them.
    side = round(min(right - left, bottom - top) * rng.uniform(0.78, 0.92))
    x = (left + right - side) // 2 + rng.randint(-4, 4)
    y = (top + bottom - side) // 2 + rng.randint(-4, 6)
    patch = Image.new("RGB", drawn.size, "white")
    patch.paste(drawn, (0, 0), drawn)
    return seen_by_encoder(patch.crop((x, y, x + side, y + side)))


def open_dataset(
    folder: Path, count: int, seed: int, workers: int, on_progress: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """The data set as memory maps; draws what is missing, and resumes where an earlier run stopped.

    Raises:
        ValueError: the folder holds a data set of another seed or size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    wanted = {"seed": seed, "count": count}
    state = json.loads(manifest.read_text()) if manifest.exists() else {**wanted, "done": 0}
    if {key: state[key] for key in wanted} != wanted:
        raise ValueError(
            f"Expected a data set of {wanted} in {folder}, got one of {state}. Use another folder, or delete "
            "this one."
        )
    # "w+" would empty the arrays of an earlier run.
    mode = "r+" if state["done"] else "w+"
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode, dtype, (count, *shape))
        for name, (shape, dtype) in ARRAYS.items()
    }
    starts = range(state["done"], count, CHUNK)
    sizes = [min(CHUNK, count - start) for start in starts]
    with ProcessPoolExecutor(workers) as pool:
        chunks = pool.map(draw_chunk, [seed] * len(starts), starts, sizes)
        # The chunks come in order, so everything before `done` is complete.
        for start, rows in zip(starts, chunks, strict=True):
            for name, values in rows.items():
                arrays[name][start:start + len(values)] = values
            # Only now does the chunk count as done: one that was cut off before is drawn again.
            done = start + len(rows["labels"])
            write_whole(manifest, json.dumps({**wanted, "done": done}).encode())
            on_progress(done)
    return arrays
