"""What the autoencoder alone leaves of pictures: their pixels, attributes, whites and grounds."""
from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..drawing.canvas import Color
from ..drawing.composition import Composition
from ..drawing.creature import sample_creature
from ..drawing.scenes import SCENE, SCENE_NAMES
from ..models.reader import as_pictures
from ..models.sizes import PICTURE_SIZE
from ..training.data import ALONE, KINDS
from ..training.truth import truth_of
from .estimates import Estimate, mean
from .pictures import drawn, drawn_maps, fresh_pictures
from .scores import kept
from .suite import Laboratory, shares_by_attribute
from .trials import FREE

LEAST_ERROR = 1e-10  # mean squared, of pictures that are exactly right
# In rows of a picture: always above the horizon, and always below it.
SKY, GROUND = slice(0, PICTURE_SIZE * 2 // 5), slice(PICTURE_SIZE * 15 // 16, PICTURE_SIZE)
MIXED, PLAIN, TURNED = "mixed", "plain", "turned"
GROUNDS = (*SCENE_NAMES, MIXED, PLAIN, TURNED)


def round_trip(lab: Laboratory, shown: Sequence[Composition]) -> tuple[Tensor, Tensor]:
    """Compositions as drawn, and what the autoencoder makes of them: `[N, 3, 256, 256]` in 0..1 each."""
    images = list(drawn(shown))
    return as_pictures(images), lab.chain.reconstruct(images)


class Fidelity(NamedTuple):
    """How close pictures come back.

    Attributes:
        decibels: the mean peak signal-to-noise ratio of the pictures of each kind.
        average: of the share of the attributes that is found in each picture of a creature alone.
        shares: of these, by attribute.
    """

    decibels: dict[str, Estimate]
    average: Estimate
    shares: dict[str, Estimate]


def fidelity(lab: Laboratory, count: int) -> Fidelity:
    """How close `count` fresh pictures of each of `KINDS` come back."""
    decibels = {}
    for kind in KINDS:
        pictures = fresh_pictures(lab.seed, kind, count, "autoencoder")
        true, ours = round_trip(lab, [picture.composition for picture in pictures])
        decibels[kind] = mean(signal_to_noise(ours, true))
        if kind == ALONE:
            reading, labels = lab.reader.read(ours), truth_of(pictures).labels
    return Fidelity(decibels, mean(kept(reading, labels)), shares_by_attribute(reading, labels))


def signal_to_noise(ours: Tensor, true: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each picture, `[N, 3, H, W]` in 0..1 -> dB `[N]`."""
    errors = (ours - true).square().mean(dim=(1, 2, 3))
    return -10 * errors.clamp(min=LEAST_ERROR).log10()


def white_distance(lab: Laboratory, count: int) -> Estimate:
    """How far white grounds are from white in pictures of creatures alone on white, in levels of 255.

    The ground of a picture is every pixel that is exactly white as drawn and belongs to no part of the
    creature. Measured is the mean of 255 - value over all channels of these pixels, and then its mean over
    the pictures.
    """
    shown = composed(lab, "white", count)
    true, ours = round_trip(lab, shown)
    ground = (drawn_maps(shown, PICTURE_SIZE) == 0) & (true == 1).all(dim=1)
    darkness = 1 - ours.mean(dim=1)
    return mean(255 * (darkness * ground).sum(dim=(1, 2)) / ground.sum(dim=(1, 2)))


def ground_shift(lab: Laboratory, ground: str, count: int) -> Estimate:
    """How far the colors of a ground are off, in levels of 255; pictures of creatures alone on it.

    Two areas of each picture are looked at: its upper two fifths, the sky, and its lowest sixteenth, the
    ground, both without the pixels of the creature. Measured is the Euclidean distance in RGB between the
    mean color of an area as drawn and its mean color as decoded; its mean over both areas, and then over the
    pictures.

    Args:
        ground: one of `GROUNDS`: a scene, "mixed" for the sky of one above the ground of another, "plain" for
            any color, or "turned" for scenes whose hues are turned, which no training has seen.
    """
    shown = composed(lab, ground, count)
    images = list(drawn(shown))
    if ground == TURNED:
        rng = random.Random(f"hues/{lab.seed}")
        images = [turned(image, rng.randrange(256)) for image in images]
    true, ours = as_pictures(images), lab.chain.reconstruct(images)
    free = drawn_maps(shown, PICTURE_SIZE) == 0
    shifts = [
        mean_color(true[:, :, rows], free[:, rows]) - mean_color(ours[:, :, rows], free[:, rows])
        for rows in (SKY, GROUND)
    ]
    return mean(255 * torch.stack([shift.norm(dim=1) for shift in shifts]).mean(dim=0))


def turned(picture: Image.Image, amount: int) -> Image.Image:
    """A picture (RGB) in other colors: their hues are turned by so many 256ths of the circle."""
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point(lambda level: (level + amount) % 256)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def mean_color(pictures: Tensor, where: Tensor) -> Tensor:
    """The mean color of those pixels: `[N, 3, H, W]` and bool `[N, H, W]` -> `[N, 3]`."""
    return (pictures * where[:, None]).sum(dim=(2, 3)) / where.sum(dim=(1, 2))[:, None]


def composed(lab: Laboratory, ground: str, count: int) -> list[Composition]:
    """Creatures alone on one of `GROUNDS`."""
    rng = random.Random(f"grounds/{lab.seed}/{ground}")
    return [Composition(*place_of(ground, rng), sample_creature(rng, FREE)) for _ in range(count)]


def place_of(ground: str, rng: random.Random) -> tuple[str, Color | None]:
    """The scene, and the color in its place, of one of `GROUNDS`."""
    if ground == MIXED:
        return "_".join(rng.sample(list(SCENE), 2)), None
    if ground == PLAIN:
        return "white", tuple(rng.randrange(256) for _ in range(3))
    return rng.choice(list(SCENE)) if ground == TURNED else ground, None
