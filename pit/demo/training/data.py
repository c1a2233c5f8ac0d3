"""The drawn data set: pictures, encoder views, views of parts and labels, in memory-mapped arrays."""
from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from ...files.whole import write_whole
from ..drawing.creature import ATTRIBUTES, PARTS, SCENES, Creature, labels, sample_creature
from ..drawing.draw import draw_part, draw_shape, encoder_view
from ..drawing.scenes import draw_scene
from ..models.sizes import ENCODER_SIZE, PICTURE_SIZE

PART_VIEWS = 5
CHUNK = 500  # creatures between two updates of the manifest, which is what an interruption loses at most
# Values and their shares. Mostly free mixtures: from coherent creatures alone, models learn the species
# instead of the parts (a prototype kept 80% of coherent parts, but 17% of freely mixed ones, where chance is
# 14%).
COHERENCE = ((0.0, 0.60), (0.5, 0.25), (0.85, 0.15))
ARRAYS = {
    "pictures": ((PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8),
    "views": ((ENCODER_SIZE, ENCODER_SIZE, 3), np.uint8),
    "part_views": ((PART_VIEWS, ENCODER_SIZE, ENCODER_SIZE, 3), np.uint8),
    "part_kinds": ((PART_VIEWS,), np.int8),
    "labels": ((len(ATTRIBUTES),), np.int8),
    "part_labels": ((PART_VIEWS, len(ATTRIBUTES)), np.int8),
}
NO_PART = -1  # a slot of `part_views` that is empty because the creature has fewer parts


def training_creature(seed: int, index: int) -> Creature:
    """Creature number `index` of the data set with this seed, whatever the size of the set."""
    rng = random.Random(f"{seed}/{index}")
    coherence = rng.choices([value for value, _ in COHERENCE], [share for _, share in COHERENCE])[0]
    return sample_creature(rng, coherence, scene=rng.choice(SCENES))


def draw_chunk(seed: int, start: int, count: int) -> dict[str, np.ndarray]:
    """Rows `start` to `start + count - 1` of every array."""
    rows = {name: np.empty((count, *shape), dtype) for name, (shape, dtype) in ARRAYS.items()}
    for offset in range(count):
        for name, value in draw_row(training_creature(seed, start + offset), seed, start + offset).items():
            rows[name][offset] = value
    return rows


def draw_row(creature: Creature, seed: int, index: int) -> dict[str, np.ndarray]:
    """One row of every array; missing part views are white, of kind `NO_PART`."""
    # Its own generator, so that the views of parts do not depend on how the creature was drawn.
    rng = random.Random(f"{seed}/{index}/parts")
    shape = draw_shape(creature, PICTURE_SIZE, 2)
    picture = draw_scene(creature.scene, PICTURE_SIZE).copy()
    picture.paste(shape, (0, 0), shape)
    parts = rng.sample(creature.parts, min(PART_VIEWS, len(creature.parts)))
    views = np.full(ARRAYS["part_views"][0], 255, np.uint8)
    # In use, parts fill about 83% of what the encoder sees: 90% of their picture, placed at 92% on white.
    for slot, part in enumerate(parts):
        views[slot] = draw_part(creature, part, ENCODER_SIZE, share=rng.uniform(0.66, 0.96), rng=rng)
    kinds = [PARTS.index(part) for part in parts]
    seen = [labels(creature, part) for part in parts]
    missing = PART_VIEWS - len(parts)
    return {
        "pictures": np.asarray(picture),
        "views": np.asarray(encoder_view(shape)),
        "part_views": views,
        "part_kinds": np.array(kinds + [NO_PART] * missing),
        "labels": np.array(labels(creature)),
        "part_labels": np.array(seen + [[-100] * len(ATTRIBUTES)] * missing),
    }


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
