"""Which scene stands behind a creature, by the colours along the edge of the picture: nothing is learnt."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..reader import as_pictures
from ..scenes import draw_scene
from ..sizes import PICTURE_SIZE

EDGE = 10


def nearest_scenes(pictures: Tensor, names: Sequence[str]) -> Tensor:
    """The scene that each picture is nearest to: `pictures [N, 3, 128, 128]` in 0..1 -> indices `[N]`.

    Compared are the outermost pixels, above and at both sides; of their differences the median counts, so
    that wings which reach the edge do not.
    """
    edge = torch.ones(PICTURE_SIZE, PICTURE_SIZE, dtype=torch.bool)
    edge[EDGE:, EDGE:-EDGE] = False
    scenes = as_pictures([draw_scene(name, PICTURE_SIZE) for name in names])[:, :, edge]
    seen = pictures[:, :, edge]
    distances = [(seen - scene).abs().sum(dim=1).median(dim=1).values for scene in scenes]
    return torch.stack(distances).argmin(dim=0)
