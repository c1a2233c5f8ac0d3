"""Triplets of a scene, a thing, and the scene with the thing in it: exact, since all of them are drawn."""
from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import Image

from .drawing.canvas import WHITE
from .drawing.composition import Composition, Place, compose, thing_box
from .drawing.creature import sample_creature
from .drawing.things import Thing, sample_thing, thing_shape
from .drawing.variety import random_ground
from .models.sizes import PICTURE_SIZE

UNIT = PICTURE_SIZE / 100
# Of an object's pictures: cut out of the target, as published; all others show the thing alone on white.
CROPPED_SHARE = 0.4
LEAST_SHARE, MOST_MARGIN = 0.6, 0.15


class Kind(NamedTuple):
    """A kind of triplet.

    Attributes:
        share: how often it is drawn.
        creature: whether there is one.
        room: for how many things there is room.
        filled: whether all of that room is filled but for the new thing.
    """

    share: float
    creature: bool
    room: int
    filled: bool = True


# A scene with room for two things gets the first, and then the second.
KINDS = (
    Kind(0.50, True, 1), Kind(0.15, True, 2, False), Kind(0.20, True, 2), Kind(0.10, False, 1),
    Kind(0.05, False, 2),
)


@dataclass(frozen=True)
class Insertion:
    """A triplet as data.

    Attributes:
        target: the picture with everything in it.
        number: which of its things is the new one.
    """

    target: Composition
    number: int = 0

    @property
    def scene(self) -> Composition:
        """The picture without the new thing."""
        things = self.target.things
        return replace(self.target, things=things[:self.number] + things[self.number + 1:])

    @property
    def thing(self) -> Thing:
        return self.target.things[self.number][0]

    @property
    def place(self) -> Place:
        """Where the new thing stands in the target."""
        return self.target.things[self.number][1]


def sample_insertion(rng: random.Random, beside_creatures: bool = False) -> Insertion:
    """Draw a triplet at random.

    Args:
        beside_creatures: only such triplets in which there is a creature.
    """
    kinds = [kind for kind in KINDS if kind.creature or not beside_creatures]
    kind = rng.choices(kinds, [kind.share for kind in kinds])[0]
    creature = sample_creature(rng, 0.0) if kind.creature else None
    scene, ground = random_ground(rng)
    things = sample_things(rng, kind.room)
    target = compose(creature, things, scene=scene, ground=ground, rng=rng)
    number = rng.randrange(kind.room)
    if kind.filled:
        return Insertion(target, number)
    return Insertion(replace(target, things=target.things[number:number + 1]))


def sample_things(rng: random.Random, count: int) -> list[Thing]:
    """Things of which no two are of the same kind and color."""
    things: list[Thing] = []
    while len(things) < count:
        thing = sample_thing(rng)
        if all((thing.kind, thing.color) != (other.kind, other.color) for other in things):
            things.append(thing)
    return things


def object_picture(insertion: Insertion, target: Image.Image, rng: random.Random) -> Image.Image:
    """The new thing by itself (RGB): alone on white, or a crop of the picture of the target."""
    if rng.random() < CROPPED_SHARE:
        return target.crop(box_of(insertion, rng.uniform(0, MOST_MARGIN)))
    share = rng.uniform(LEAST_SHARE, 1)
    shape = thing_shape(insertion.thing, PICTURE_SIZE, share=share)
    free = round(PICTURE_SIZE * (1 - share) / 2)
    picture = Image.new("RGB", shape.size, WHITE)
    picture.paste(shape, (rng.randint(-free, free), rng.randint(-free, free)), shape)
    return picture


def box_of(insertion: Insertion, margin: float = 0.0) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the new thing in the picture of the target, in pixels.

    Args:
        margin: what is added on each side, as a share of the thing's longer side.
    """
    sides = thing_box(insertion.thing, insertion.place, margin)
    return tuple(min(PICTURE_SIZE, max(0, round(side * UNIT))) for side in sides)
