"""Where the error of a UNet counts more: at what is small, which a mean over the picture would hardly see."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..drawing.composition import Composition, draw_map, thing_box
from ..drawing.creature import PARTS
from ..drawing.draw import FOOT
from ..models.sizes import LATENT_SIZE

# How much more it counts where a thing is, which covers one in fifteen places, and where a creature of
# half the size is.
THING_WEIGHT, SMALL_WEIGHT = 4.0, 1.0
CREATURE_REACH = 47  # units to each side, and twice that above its foot
# What the places of a part add in all, as a share of the picture, and how much at most at each: ears behind
# horns are often a hundredth of the picture, and their color is an attribute as much as that of the body.
PART_TOTAL, MOST_AT_PART = 0.04, 4.0
MAP_SIZE = 2 * LATENT_SIZE


def importance_of(compositions: Sequence[Composition]) -> Tensor:
    """How much the error counts at each place of pictures, `[N, 16, 16]`."""
    weights = torch.ones(len(compositions), LATENT_SIZE, LATENT_SIZE)
    for places, shown in zip(weights, compositions, strict=True):
        if shown.creature and shown.things:
            reach = CREATURE_REACH * shown.place.size
            x = shown.place.x
            places[cells((x - reach, FOOT[1] - 2 * reach, x + reach, FOOT[1]))] += SMALL_WEIGHT
        for thing, place in shown.things:
            places[cells(thing_box(thing, place))] += THING_WEIGHT
    return weights


def part_importance(compositions: Sequence[Composition]) -> Tensor:
    """What is added for parts of creatures, the more, the less of a part is to be seen, `[N, 16, 16]`."""
    return torch.from_numpy(np.stack([added_by_parts(each) for each in compositions]))


def added_by_parts(shown: Composition) -> np.ndarray:
    """What is added at each place of one picture, float32 `[16, 16]`; where two parts meet, the larger."""
    found = draw_map(shown, MAP_SIZE, supersample=1)
    area = np.bincount(found.ravel(), minlength=len(PARTS) + 1) / found.size
    added = np.minimum(MOST_AT_PART, PART_TOTAL / np.maximum(area, 1e-9)).astype(np.float32)
    added[0] = added[len(PARTS) + 1:] = 0  # the ground, and things
    places = added[found].reshape(LATENT_SIZE, 2, LATENT_SIZE, 2)
    return places.max(axis=(1, 3))


def cells(box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of latents that a box in units touches."""
    left, top, right, bottom = (side * LATENT_SIZE / 100 for side in box)
    return slice(max(0, int(top)), math.ceil(bottom)), slice(max(0, int(left)), math.ceil(right))
