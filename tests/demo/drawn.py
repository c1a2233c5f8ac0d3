"""Drawn pictures that several tests need: creatures with a flaw, and triplets as a folder."""
from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from pit.demo.drawing.composition import Composition, draw_composition
from pit.demo.drawing.creature import Creature
from pit.demo.drawing.flaws import flawed
from pit.demo.drawing.things import draw_thing
from pit.demo.models.sizes import PICTURE_SIZE
from pit.demo.triplets import sample_insertion
from pit.files.pictures import save_picture
from pit.object_insertion.training.triplets import OBJECT, SCENE, TARGET


def draw_flawed(creature: Creature, rng: random.Random) -> Image.Image:
    """The creature, alone in its scene, with one flaw, chosen at random (RGB, 256 px)."""
    return flawed(Composition(creature.scene, creature=creature), rng)


def write_triplets(folder: Path, count: int, seed: int) -> None:
    """Draw triplets in the published layout, of which training from a folder reads them."""
    for column in (SCENE, OBJECT, TARGET):
        (folder / column).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        insertion = sample_insertion(random.Random(f"triplets/{seed}/{index}"))
        name = f"{seed}-{index:05d}.png"
        save_picture(folder / SCENE / name, draw_composition(insertion.scene, PICTURE_SIZE))
        save_picture(folder / OBJECT / name, draw_thing(insertion.thing, PICTURE_SIZE))
        save_picture(folder / TARGET / name, draw_composition(insertion.target, PICTURE_SIZE))
