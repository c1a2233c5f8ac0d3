"""How a part is varied before it is encoded, so that the prior does not learn its place, size or tilt."""
from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from ...images import on_white
from ..parts import place_part, sketch_or_not


@dataclass(frozen=True)
class Augmentation:
    """The published probabilities and ranges.

    With `crop_probability` the part is cropped to `crop_least` to 1 of its width and height; with
    `rotation_probability` it is rotated by up to `rotation_degrees` either way; its size on the canvas is
    `scale_least` to `scale_most`; with `sketch_probability` it becomes a sketch.
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

    Draws in this order: whether to crop, then width, height, x and y; whether to rotate, then the angle; the
    scale; x and y of the place; whether to sketch (nothing for a probability of 0), then the curves. The
    rotation is bicubic.
    """
    # This order is part of the token cache: with another one the same seed would give other variants, and a
    # cache that is added to would mix the two.
    part = on_white(part)
    if rng.random() < settings.crop_probability:
        part = _crop(part, settings.crop_least, rng)
    if rng.random() < settings.rotation_probability:
        angle = rng.uniform(-settings.rotation_degrees, settings.rotation_degrees)
        # Expanded, so that no corner is cut off; filled with white, the ground that parts are on.
        part = part.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    scale = rng.uniform(settings.scale_least, settings.scale_most)
    placed = place_part(part, canvas=size, scale=scale, rng=rng)
    return sketch_or_not(placed, settings.sketch_probability, rng)


def _crop(part: Image.Image, least: float, rng: random.Random) -> Image.Image:
    width = max(int(part.width * rng.uniform(least, 1)), 1)
    height = max(int(part.height * rng.uniform(least, 1)), 1)
    x, y = rng.randint(0, part.width - width), rng.randint(0, part.height - height)
    return part.crop((x, y, x + width, y + height))
