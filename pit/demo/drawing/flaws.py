"""Creatures that are not complete, from which the reader learns to tell complete ones.

Flaws work on whole pictures as data, so that they also happen to small creatures between things. Lengths are
in units, of which a side of a picture has 100.
"""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw, ImageFilter

from ..models.sizes import PICTURE_SIZE
from .canvas import Canvas
from .composition import Composition, Place, draw_composition, paint_composition
from .creature import STYLES, Creature, sample_creature
from .draw import FOOT, paint_creature
from .pose import BACK, FRONT, NEUTRAL, SIDE
from .things import paint_thing, sample_thing

COMPULSORY = ("body", "eyes", "mouth")  # every creature has these; any other part may be absent
PAIRED = ("arms", "legs", "wings", "ears", "horns")
UNIT = PICTURE_SIZE / 100
MIDDLE = 58  # of a body of the usual size; its face lies around it, too

Flaw = Callable[[Composition, random.Random], Image.Image]


def without_a_part(composition: Composition, rng: random.Random) -> Image.Image:
    """The body, the eyes or the mouth are missing."""
    seen = COMPULSORY[:1] if composition.creature.pose.view == BACK else COMPULSORY
    return draw_composition(lacking(composition, rng.choice(seen)), PICTURE_SIZE)


def with_half_a_pair(composition: Composition, rng: random.Random) -> Image.Image:
    """One of two limbs or half of a horn is missing; the creature is seen from the front or the back."""
    part = rng.choice([part for part in PAIRED if composition.creature.attributes[part] != "none"])
    x, _ = placed(composition.place, 50, 0)
    return halves(composition, lacking(composition, part), x, 0, rng.random() < 0.5)


def with_a_part_twice(composition: Composition, rng: random.Random) -> Image.Image:
    """The eyes or the mouth are there a second time; not the body, which would hide all the rest."""
    picture, canvas = draw_composition(composition, PICTURE_SIZE), Canvas(PICTURE_SIZE)
    place = composition.place
    # Far enough up or down that the second one does not cover the first.
    shift = place.size * rng.uniform(-20, 20), place.size * rng.choice((-1, 1)) * rng.uniform(13, 24)
    with canvas.placed(place.x - 50 + shift[0], shift[1], grow=place.size, around=FOOT):
        paint_creature(composition.creature, canvas, only=rng.choice(COMPULSORY[1:]))
    return pasted(picture, canvas)


def with_two_tails(composition: Composition, rng: random.Random) -> Image.Image:
    """A second tail on the other side, of the same style or of another."""
    picture, canvas = draw_composition(composition, PICTURE_SIZE), Canvas(PICTURE_SIZE)
    creature, place = composition.creature, composition.place
    other = rng.choice([style for style in STYLES["tail"] if style != "none"])
    attributes = creature.attributes | {"tail": rng.choice((creature.attributes["tail"], other))}
    # From behind, both would cover each other if only mirrored.
    view = FRONT if creature.pose.view == BACK else creature.pose.view
    pose = replace(creature.pose, mirrored=not creature.pose.mirrored, view=view)
    with canvas.placed(place.x - 50, grow=place.size, around=FOOT):
        paint_creature(replace(creature, attributes=attributes, pose=pose), canvas, only="tail")
    return pasted(picture, canvas)


def two_creatures(composition: Composition, rng: random.Random) -> Image.Image:
    """A second creature that covers a part of the first, or stands beside it, both of them small."""
    first, second = composition.creature, sample_creature(rng, 0.0)
    if rng.random() < 0.4:
        second = replace(first, pose=first.pose if rng.random() < 0.5 else NEUTRAL)
    left, right = rng.sample((1, -1), 2)
    if rng.random() < 0.5:
        size = rng.uniform(0.4, 0.58)
        composition = replace(composition, place=Place(50 + 25 * left, size), things=())
        other = Place(50 + 25 * right, size * rng.uniform(0.9, 1.1))
    else:
        # About a third of it lies outside of what the first one covers, which stays visible.
        size = composition.place.size * rng.uniform(0.5, 0.9)
        other = Place(composition.place.x + right * composition.place.size * rng.uniform(28, 42), size)
    canvas = Canvas(PICTURE_SIZE)
    paint_composition(Composition(creature=second, place=other), canvas)
    return pasted(draw_composition(composition, PICTURE_SIZE), canvas)


def half_a_creature(composition: Composition, rng: random.Random) -> Image.Image:
    """Cut through the middle, with the empty scene on the other side."""
    return cut(composition, replace(composition, creature=None), rng)


def two_halves(composition: Composition, rng: random.Random) -> Image.Image:
    """The half of one creature and that of another."""
    return cut(composition, replace(composition, creature=stranger(composition, rng)), rng)


def dissolved(composition: Composition, rng: random.Random) -> Image.Image:
    """Half transparent: over the empty scene, or over another creature."""
    other = None if rng.random() < 0.3 else stranger(composition, rng)
    rest = draw_composition(replace(composition, creature=other), PICTURE_SIZE)
    # Close enough to half and half that neither picture dominates.
    return Image.blend(draw_composition(composition, PICTURE_SIZE), rest, rng.uniform(0.35, 0.65))


def smeared(composition: Composition, rng: random.Random) -> Image.Image:
    """Blurred until the face is gone."""
    return blurred(draw_composition(composition, PICTURE_SIZE), 100 * composition.place.size, rng)


def with_a_smeared_face(composition: Composition, rng: random.Random) -> Image.Image:
    """Only the face is blurred."""
    picture, pose = draw_composition(composition, PICTURE_SIZE), composition.creature.pose
    ahead = 0 if pose.view != SIDE else -9 if pose.mirrored else 9
    x, y = placed(composition.place, 50 + ahead, MIDDLE)
    radius = composition.place.size * rng.uniform(17, 22) * UNIT
    mask = Image.new("L", picture.size, 0)
    box = (x * UNIT - radius, y * UNIT - radius, x * UNIT + radius, y * UNIT + radius)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    smooth = mask.filter(ImageFilter.GaussianBlur(radius / 10))
    picture.paste(blurred(picture, 100 * composition.place.size, rng), (0, 0), smooth)
    return picture


def behind_a_thing(composition: Composition, rng: random.Random) -> Image.Image:
    """A thing hides the face, or another part of the middle."""
    picture, canvas = draw_composition(composition, PICTURE_SIZE), Canvas(PICTURE_SIZE)
    place = composition.place
    x, y = placed(place, 50 + rng.uniform(-10, 10), rng.uniform(68, 92))
    with canvas.placed(x, y, grow=place.size * rng.uniform(1.0, 1.8)):
        paint_thing(canvas, sample_thing(rng))
    return pasted(picture, canvas)


def lacking(composition: Composition, part: str) -> Composition:
    """The same without a part of the creature."""
    attributes = composition.creature.attributes | {part: "none"}
    return replace(composition, creature=replace(composition.creature, attributes=attributes))


def stranger(composition: Composition, rng: random.Random) -> Creature:
    """Another creature in the same pose."""
    return replace(sample_creature(rng, 0.0), pose=composition.creature.pose)


def placed(place: Place, x: float, y: float) -> tuple[float, float]:
    """Where a point of the creature lies in the picture, in units."""
    return place.x + place.size * (x - FOOT[0]), FOOT[1] + place.size * (y - FOOT[1])


def cut(first: Composition, second: Composition, rng: random.Random) -> Image.Image:
    """One picture on one side of a line through the middle of the creature, another on the other side."""
    upright = rng.random() < 0.6
    shift, turn = first.place.size * rng.uniform(-5, 5), rng.uniform(-15, 15)
    x, y = placed(first.place, 50, MIDDLE)
    middle, angle = (x + shift, turn) if upright else (y + shift, 90 + turn)
    return halves(first, second, middle, angle, rng.random() < 0.5)


def halves(
    first: Composition, second: Composition, middle: float, angle: float, swapped: bool
) -> Image.Image:
    """The left half of one picture and the right one of another.

    Args:
        middle: x of the line between them in units; its y, if the angle is about 90 degrees.
        angle: by which the line is turned clockwise, in degrees.
        swapped: the right half of the first one and the left one of the second.
    """
    one, other = (draw_composition(each, PICTURE_SIZE) for each in (first, second))
    # Twice the size, so that no corner of the picture is left uncovered once the mask is turned.
    size = PICTURE_SIZE * 2
    mask = Image.new("L", (size, size), 0)
    start = 0 if swapped else size // 2
    ImageDraw.Draw(mask).rectangle((start, 0, start + size // 2 - 1, size), 255)
    mask = mask.rotate(-angle)
    x, y = (50, middle) if angle > 45 else (middle, 50)
    left, top = size // 2 - round(x * UNIT), size // 2 - round(y * UNIT)
    one.paste(other, (0, 0), mask.crop((left, top, left + PICTURE_SIZE, top + PICTURE_SIZE)))
    return one


def blurred(picture: Image.Image, size: float, rng: random.Random) -> Image.Image:
    """Blurred until nothing of a face is left on a creature of this size in units."""
    return picture.filter(ImageFilter.GaussianBlur(size * UNIT * rng.uniform(0.04, 0.09)))


def pasted(picture: Image.Image, canvas: Canvas) -> Image.Image:
    shape = canvas.finish()
    picture.paste(shape, (0, 0), shape)
    return picture


FLAWS: dict[str, Flaw] = {
    "a part missing": without_a_part,
    "half a pair": with_half_a_pair,
    "a part twice": with_a_part_twice,
    "two tails": with_two_tails,
    "two creatures": two_creatures,
    "half a creature": half_a_creature,
    "two halves": two_halves,
    "dissolved": dissolved,
    "smeared": smeared,
    "a smeared face": with_a_smeared_face,
    "behind a thing": behind_a_thing,
}


def possible_flaws(creature: Creature) -> list[str]:
    """The flaws that one would see on this creature in its pose."""
    has, view = creature.attributes, creature.pose.view
    missing = set()
    if view == BACK:
        missing |= {"a part twice", "a smeared face"}
    if view == SIDE or all(has[part] == "none" for part in PAIRED):
        missing.add("half a pair")
    if has["tail"] == "none":
        missing.add("two tails")
    return [flaw for flaw in FLAWS if flaw not in missing]


def flawed(composition: Composition, rng: random.Random) -> Image.Image:
    """A picture whose creature has one flaw, chosen at random (RGB, 256 px); there must be a creature."""
    return FLAWS[rng.choice(possible_flaws(composition.creature))](composition, rng)
