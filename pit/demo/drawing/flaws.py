"""Creatures that are not complete, from which the reader learns to tell complete ones."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw, ImageFilter

from ..models.sizes import PICTURE_SIZE
from .creature import Creature, sample_creature
from .draw import draw_creature, draw_shape
from .scenes import draw_scene

COMPULSORY = ("body", "eyes", "mouth")  # every creature has these; any other part may be absent


def without_a_part(creature: Creature, rng: random.Random) -> Image.Image:
    """The body, the eyes or the mouth are missing."""
    attributes = creature.attributes | {rng.choice(COMPULSORY): "none"}
    return draw_creature(replace(creature, attributes=attributes), PICTURE_SIZE)


def with_a_part_twice(creature: Creature, rng: random.Random) -> Image.Image:
    """The eyes or the mouth are there a second time."""
    picture = draw_creature(creature, PICTURE_SIZE)
    # Not the body: a second one would hide all the rest.
    extra = draw_shape(creature, PICTURE_SIZE, 2, only=rng.choice(COMPULSORY[1:]))
    # Far enough up or down that the second one does not cover the first.
    shift = (rng.randint(-30, 30), rng.choice((-1, 1)) * rng.randint(16, 32))
    picture.paste(extra, shift, extra)
    return picture


def two_creatures(creature: Creature, rng: random.Random) -> Image.Image:
    """A second, smaller creature, or the same one again."""
    picture = draw_creature(creature, PICTURE_SIZE)
    other = creature if rng.random() < 0.5 else sample_creature(rng, 0.0)
    size = rng.randint(PICTURE_SIZE // 2, PICTURE_SIZE * 7 // 8)
    shape = draw_shape(other, size, 2)
    # A third of it lies outside of the picture, so that the first one stays visible.
    left = rng.choice((-size // 3, PICTURE_SIZE - size * 2 // 3))
    picture.paste(shape, (left, rng.randint(-20, 50)), shape)
    return picture


def half_a_creature(creature: Creature, rng: random.Random) -> Image.Image:
    """Cut through the middle, with the empty scene on the other side."""
    picture = draw_creature(creature, PICTURE_SIZE)
    # Twice the size, so that no corner of the picture is left uncovered once the mask is turned.
    mask = Image.new("L", (PICTURE_SIZE * 2,) * 2, 0)
    ImageDraw.Draw(mask).rectangle((0, 0, PICTURE_SIZE + rng.randint(-10, 10), PICTURE_SIZE * 2), fill=255)
    mask = mask.rotate(rng.choice((0, 90, 180, 270)) + rng.uniform(-15, 15))
    middle = PICTURE_SIZE // 2
    mask = mask.crop((middle, middle, middle + PICTURE_SIZE, middle + PICTURE_SIZE))
    picture.paste(draw_scene(creature.scene, PICTURE_SIZE), (0, 0), mask)
    return picture


def dissolved(creature: Creature, rng: random.Random) -> Image.Image:
    """Half transparent: over the empty scene, or over another creature."""
    picture = draw_creature(creature, PICTURE_SIZE)
    other = sample_creature(rng, 0.0, scene=creature.scene)
    empty = rng.random() < 0.3
    rest = draw_scene(creature.scene, PICTURE_SIZE) if empty else draw_creature(other, PICTURE_SIZE)
    # Close enough to half and half that neither picture dominates.
    return Image.blend(picture, rest, rng.uniform(0.35, 0.65))


def smeared(creature: Creature, rng: random.Random) -> Image.Image:
    """Blurred until the face is gone."""
    picture = draw_creature(creature, PICTURE_SIZE)
    return picture.filter(ImageFilter.GaussianBlur(PICTURE_SIZE * rng.uniform(0.04, 0.09)))


FLAWS: dict[str, Callable[[Creature, random.Random], Image.Image]] = {
    "a part missing": without_a_part,
    "a part twice": with_a_part_twice,
    "two creatures": two_creatures,
    "half a creature": half_a_creature,
    "dissolved": dissolved,
    "smeared": smeared,
}


def draw_flawed(creature: Creature, rng: random.Random) -> Image.Image:
    """The creature with one flaw, chosen at random (RGB, 128 px)."""
    return FLAWS[rng.choice(list(FLAWS))](creature, rng)
