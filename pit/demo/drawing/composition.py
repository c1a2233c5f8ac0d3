"""Whole pictures: a creature, things beside it or alone, what they stand on, and what is at each pixel."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .canvas import SUPERSAMPLE, Canvas, Color
from .creature import PARTS, Creature
from .draw import FOOT, paint_creature, paint_shadow
from .scenes import draw_scene, plain_scene
from .things import Thing, paint_thing, thing_size
from .things import paint_shadow as paint_thing_shadow

THING_LABEL = len(PARTS) + 1  # of the first thing in a map; those of parts are `PART_LABELS`
# By the number of things: x of the foot and size, of the creature and of each thing. Chosen so that nothing
# touches: a creature reaches 47 units to the sides, a thing 13.
BESIDE: dict[int, tuple[tuple[float, float], tuple[tuple[float, float], ...]]] = {
    0: ((50, 1.0), ()),
    1: ((35, 0.68), ((84, 0.95),)),
    2: ((50, 0.54), ((12.5, 0.8), (87.5, 0.8))),
}
ALONE: dict[int, tuple[tuple[float, float], ...]] = {1: ((50, 2.0),), 2: ((27, 1.4), (73, 1.4))}


@dataclass(frozen=True)
class Place:
    """Where something stands: x of its foot in units, and its size, of which 1 is that of the painters."""

    x: float = 50
    size: float = 1


@dataclass(frozen=True)
class Composition:
    """A picture as data.

    Attributes:
        scene: one of `scenes.SCENE_NAMES`, or two of them as in "night_meadow".
        ground: a plain color, in place of the scene.
        creature: if there is one; its own scene is not looked at.
        things: with their places.
    """

    scene: str = "white"
    ground: Color | None = None
    creature: Creature | None = None
    place: Place = Place()
    things: tuple[tuple[Thing, Place], ...] = ()


def compose(
    creature: Creature | None, things: Sequence[Thing] = (), *, scene: str = "white",
    ground: Color | None = None, rng: random.Random | None = None,
) -> Composition:
    """A picture in which nothing touches: one thing stands on one side of a creature, two on both sides.

    Args:
        things: up to two.
        rng: moves and swaps the places a little.
    Raises:
        ValueError: more than two things.
    """
    if len(things) > 2:
        raise ValueError(f"Expected at most two things in a picture, got {len(things)}.")
    own, others = BESIDE[len(things)] if creature else ((50, 1.0), ALONE.get(len(things), ()))
    mirrored = rng is not None and len(things) == 1 and rng.random() < 0.5

    def place(x: float, size: float) -> Place:
        shift = rng.uniform(-1.5, 1.5) if rng and things else 0
        return Place(round((100 - x if mirrored else x) + shift, 2), size)

    placed = tuple((thing, place(*other)) for thing, other in zip(things, others, strict=True))
    return Composition(scene, ground, creature, place(*own), placed)


def thing_box(thing: Thing, place: Place, margin: float = 0.0) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a thing in its place, in units, 100 to a side.

    Args:
        margin: what is added on each side, as a share of the thing's longer side.
    """
    width, height = (place.size * side for side in thing_size(thing))
    around = margin * max(width, height)
    return (
        place.x - width / 2 - around, FOOT[1] - height - around, place.x + width / 2 + around,
        FOOT[1] + around,
    )


def paint_composition(composition: Composition, canvas: Canvas, shadows: bool = True) -> None:
    """Draw all but the scene."""
    creature, (x, y) = composition.creature, FOOT
    own = {"x": composition.place.x - x, "grow": composition.place.size, "around": FOOT}
    if shadows:  # first of all: they replace what is there
        for thing, place in composition.things:
            with canvas.placed(place.x, y, grow=place.size):
                paint_thing_shadow(canvas, thing_size(thing)[0] / 2)
        if creature:
            with canvas.placed(**own):
                paint_shadow(creature, canvas)
    if creature:
        with canvas.placed(**own):
            paint_creature(creature, canvas)
    for number, (thing, place) in enumerate(composition.things):
        canvas.label = THING_LABEL + number
        with canvas.placed(place.x, y, grow=place.size):
            paint_thing(canvas, thing)
    canvas.label = 0


def draw_composition(composition: Composition, pixels: int = 256) -> Image.Image:
    """The whole picture, `pixels` x `pixels` (RGB).

    Raises:
        ValueError: unknown scene, or a ground that is no color.
    """
    canvas = Canvas(pixels)
    paint_composition(composition, canvas)
    if composition.ground is None:
        picture = draw_scene(composition.scene, pixels).copy()
    else:
        picture = plain_scene(composition.ground, pixels)
    shape = canvas.finish()
    picture.paste(shape, (0, 0), shape)
    return picture


def draw_map(composition: Composition, pixels: int = 256, supersample: int = SUPERSAMPLE) -> np.ndarray:
    """What is at each pixel: one of `PART_LABELS`, `THING_LABEL` or the next, or 0, the ground; `[N, N]`."""
    return labeled_canvas(composition, pixels, supersample).finish_map()


def draw_thing_masks(composition: Composition, pixels: int = 256) -> np.ndarray:
    """How much of each pixel each thing covers, float32 `[T, pixels, pixels]`; there must be a thing."""
    labels = [THING_LABEL + number for number in range(len(composition.things))]
    return labeled_canvas(composition, pixels).finish_masks(labels)


def labeled_canvas(composition: Composition, pixels: int, supersample: int = SUPERSAMPLE) -> Canvas:
    """All but the scene and the shadows on a canvas that keeps its labels."""
    canvas = Canvas(pixels, supersample, labeled=True)
    paint_composition(composition, canvas, shadows=False)
    return canvas
