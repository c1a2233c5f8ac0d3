"""Crops that a picture shares with what belongs to it: a target with its pose, a reference with its mask.

The published training draws them one by one, so that masks lie beside their parts and poses beside their
bodies, and of pictures that are not square it always takes the middle.
"""
from __future__ import annotations

import math
import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LEAST = 0.9  # share of the largest crop, and of its aspect, as published
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in 0..1 of a picture's sides."""


def crop_box(size: tuple[int, int], aspect: float, rng: random.Random | None = None) -> Box:
    """A crop for pictures of this aspect (width by height), from a picture of `size` (width, height).

    Args:
        rng: without it, the largest crop in the middle.
    """
    given = size[0] / size[1]
    ratio, share = min(max(given, LEAST * aspect), aspect), 1.0
    if rng is not None:
        ratio = aspect * math.exp(rng.uniform(math.log(LEAST), 0))
        share = rng.uniform(LEAST, 1) ** 0.5  # of each side
    width, height = share * min(1, ratio / given), share * min(1, given / ratio)
    left, top = (
        (1 - side) * (0.5 if rng is None else rng.random()) for side in (width, height)
    )
    return left, top, left + width, top + height


def cropped(
    picture: Image.Image, size: tuple[int, int], box: Box, resample: Image.Resampling
) -> Image.Image:
    """What is in the box, in `size` (width, height)."""
    width, height = picture.size
    # Rounding can lead beyond the edge, which Pillow refuses.
    part = box[0] * width, box[1] * height, min(box[2] * width, width), min(box[3] * height, height)
    return picture.resize(size, resample, box=part)


def to_channels(picture: Image.Image) -> Tensor:
    """A picture or mask as `[C, H, W]` in 0..1."""
    values = torch.from_numpy(np.array(picture)).float() / 255
    return values[None] if values.ndim == 2 else values.movedim(-1, 0)
