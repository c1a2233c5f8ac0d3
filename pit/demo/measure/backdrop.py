"""Which scene stands behind a creature, by the colours at the edges of the picture: nothing is learnt."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..drawing.scenes import draw_scene
from ..models.reader import as_pictures
from ..models.sizes import PICTURE_SIZE

EDGE, CORNER = 10, 30


def nearest_scenes(pictures: Tensor, names: Sequence[str]) -> Tensor:
    """The scene that each picture is nearest to: `pictures [N, 3, 128, 128]` in 0..1 -> indices `[N]`.

    Compared are the outermost pixels above and at both sides, and the lower corners; of the differences in
    each of the two the median counts, so that wings and tails which reach there do not.
    """
    scenes = as_pictures([draw_scene(name, PICTURE_SIZE) for name in names])
    distances = torch.stack([
        sum((pictures - scene).abs().sum(dim=1)[:, place].median(dim=1).values for place in places())
        for scene in scenes
    ])
    return distances.argmin(dim=0)


def places() -> tuple[Tensor, Tensor]:
    """Where there is sky, and where there is ground, bool `[128, 128]`."""
    sky = torch.zeros(PICTURE_SIZE, PICTURE_SIZE, dtype=torch.bool)
    ground = sky.clone()
    sky[:EDGE] = sky[:-4 * EDGE, :EDGE] = sky[:-4 * EDGE, -EDGE:] = True
    ground[-EDGE:, :CORNER] = ground[-EDGE:, -CORNER:] = True
    return sky, ground
