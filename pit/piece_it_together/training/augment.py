"""How a part is varied before it is encoded, so that the prior does not learn its place, size or tilt."""
from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from ...images import on_white
from ..parts import place_part, sketch_or_not


@dataclass(frozen=True)
class Augmentation:
    """The published chances and ranges.

    With `crop_probability` a crop of the part is taken whose width and height are `crop_least` to 1 of the
    part's; with `rotation_probability` it is turned by up to `rotation_degrees` either way; its size on the
    canvas is `scale_least` to `scale_most`; with `sketch_probability` it becomes a sketch.
    """

    crop_probability: float = 0.2
    crop_least: float = 0.8
    rotation_probability: float = 0.2
    rotation_degrees: float = 30.0
    scale_least: float = 0.8
    scale_most: float = 0.95
    sketch_probability: float = 0.0


def augment_part(
    part: Image.Image, size: tuple[int, int], settings: Augmentation, rng: random.Random
) -> Image.Image:
    """`part` varied and placed on a white RGB picture of `size` (its target's, width first), as published.

    Draws in this order: crop or not, then its width, height, x and y; turn or not, then the angle; the scale;
    x and y of the place; sketch or not (nothing with a chance of 0), then its curves. The turn is bicubic.
    """
    part = on_white(part)
    if rng.random() < settings.crop_probability:
        part = _crop(part, settings.crop_least, rng)
    if rng.random() < settings.rotation_probability:
        angle = rng.uniform(-settings.rotation_degrees, settings.rotation_degrees)
        part = part.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    scale = rng.uniform(settings.scale_least, settings.scale_most)
    placed = place_part(part, canvas=size, scale=scale, rng=rng)
    return sketch_or_not(placed, settings.sketch_probability, rng)


def _crop(part: Image.Image, least: float, rng: random.Random) -> Image.Image:
    width = max(int(part.width * rng.uniform(least, 1)), 1)
    height = max(int(part.height * rng.uniform(least, 1)), 1)
    x, y = rng.randint(0, part.width - width), rng.randint(0, part.height - height)
    return part.crop((x, y, x + width, y + height))
