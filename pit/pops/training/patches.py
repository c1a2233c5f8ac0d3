"""Squares that lie inside a mask: patches of a texture, or of a background."""
from __future__ import annotations

import random

import numpy as np
from PIL import Image
from scipy import ndimage

SMALLEST = 96  # pixels, as published


def patch_inside(picture: Image.Image, mask: np.ndarray, most: int, rng: random.Random) -> Image.Image:
    """A random square of a picture that a mask covers whole, as large as `most` at most.

    The published crop: a place where a square of the smallest size fits, and there one of a random size, made
    smaller until it fits. Where none of the smallest size fits, the widest place is taken. The published code
    compares places in a crop with the size of the whole picture; here all is in one place.

    Args:
        mask: `[H, W]` bool, of the picture's size, True somewhere.
    """
    smallest = max(1, min(SMALLEST, most - 1))
    wanted = rng.randint(smallest, max(smallest, most))
    # With a border that is not covered, so that squares end at that of the picture.
    reach = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    fitting = 2 * reach - 1  # the side of the largest square around each pixel
    centers = np.argwhere(fitting >= min(smallest, int(fitting.max())))
    y, x = centers[rng.randrange(len(centers))].tolist()
    side = min(wanted, int(fitting[y, x]))
    left, top = x - (side - 1) // 2, y - (side - 1) // 2
    return picture.crop((left, top, left + side, top + side))


def placed(thing: Image.Image, canvas: tuple[int, int], scale: float, rng: random.Random) -> Image.Image:
    """An RGB cut-out at a random place of a white canvas, as large as `scale` of it allows (Lanczos)."""
    factor = scale * min(canvas[0] / thing.width, canvas[1] / thing.height)
    size = [max(1, int(side * factor)) for side in thing.size]
    x, y = (rng.randint(0, whole - side) for whole, side in zip(canvas, size, strict=True))
    result = Image.new("RGB", canvas, "white")
    result.paste(thing.resize(size, Image.Resampling.LANCZOS), (x, y))
    return result
