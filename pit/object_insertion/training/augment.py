"""Random versions of a triplet, as the published training makes them.

One crop and one flip for scene and target; for the object a flip, a turn and a wavy distortion of its own.
"""
from __future__ import annotations

import math
import random

import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

LEAST_AREA = 0.9
MOST_RATIO = 4 / 3
ATTEMPTS = 10
MOST_DEGREES = 20.0
WAVES, SMOOTHNESS = 50.0, 5.0
"""How far pixels are moved, and over how many pixels the movement is smoothed: torchvision's defaults."""
Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def random_box(rng: random.Random) -> Box:
    """A random crop of nine tenths of a picture or more, as torchvision's RandomResizedCrop draws it."""
    for _ in range(ATTEMPTS):
        area = rng.uniform(LEAST_AREA, 1)
        ratio = math.exp(rng.uniform(-math.log(MOST_RATIO), math.log(MOST_RATIO)))
        width, height = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if width <= 1 and height <= 1:
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            return left, top, left + width, top + height
    return WHOLE


def cropped(picture: Image.Image, size: int, box: Box = WHOLE, flip: bool = False) -> Image.Image:
    """A part of a picture, squashed to a square of `size` pixels as published, and mirrored if `flip`."""
    width, height = picture.size
    part = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    square = picture.resize((size, size), Image.Resampling.BICUBIC, box=part)
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else square


def distorted(pixels: Tensor, rng: random.Random) -> Tensor:
    """Pixel values `[3, S, S]` of an object, mirrored or not, turned and distorted; 0 where nothing is."""
    side = pixels.shape[-1]
    angle = math.radians(rng.uniform(-MOST_DEGREES, MOST_DEGREES))
    flip = rng.choice((-1, 1))
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    moves = torch.rand(2, side, side, generator=generator) * 2 - 1
    smooth = ndimage.gaussian_filter(moves.numpy(), (0, SMOOTHNESS, SMOOTHNESS), mode="mirror")
    places = functional.affine_grid(torch.eye(2, 3)[None], [1, *pixels.shape], align_corners=False)
    places = places + torch.from_numpy(smooth).movedim(0, -1) * WAVES / side
    # As if the turned picture were distorted: where a pixel comes from is turned last.
    cos, sin = math.cos(angle), math.sin(angle)
    grid = places @ torch.tensor([[flip * cos, sin], [-flip * sin, cos]])
    return functional.grid_sample(pixels[None], grid, align_corners=False)[0]
