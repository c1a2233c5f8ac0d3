"""Where the error of a UNet counts more: at small things, which a mean over the picture would hardly see."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..drawing.composition import Composition, thing_box
from ..drawing.draw import FOOT
from ..models.sizes import LATENT_SIZE

# How much more it counts where a thing is, which covers one in fifteen places, and where a creature of
# half the size is.
THING_WEIGHT, SMALL_WEIGHT = 4.0, 1.0
CREATURE_REACH = 47  # units to each side, and twice that above its foot


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


def cells(box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of latents that a box in units touches."""
    left, top, right, bottom = (side * LATENT_SIZE / 100 for side in box)
    return slice(max(0, int(top)), math.ceil(bottom)), slice(max(0, int(left)), math.ceil(right))
