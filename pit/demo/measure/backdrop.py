"""Which scene is behind a creature, judged by the colors at the edges of the picture; nothing is trained."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..drawing.scenes import draw_scene
from ..models.reader import as_pictures
from ..models.sizes import PICTURE_SIZE

EDGE, CORNER = 20, 60  # pixels: how deep the compared stripes are, and how far the lower ones reach inward


def nearest_scenes(pictures: Tensor, names: Sequence[str]) -> Tensor:
    """The scene that each picture comes closest to: `pictures [N, 3, 256, 256]` in 0..1 -> indices `[N]`.

    The sky (the upper edge and both sides) and the ground (the lower corners) are compared separately.
    """
    # The reader cannot tell the scenes that an IP-LoRA teaches: it was trained on the others.
    scenes = as_pictures([draw_scene(name, PICTURE_SIZE) for name in names])
    # The median ignores wings and tails that reach the edges, as long as they cover less than half of them.
    distances = torch.stack([
        sum((pictures - scene).abs().sum(dim=1)[:, place].median(dim=1).values for place in places())
        for scene in scenes
    ])
    return distances.argmin(dim=0)


def places() -> tuple[Tensor, Tensor]:
    """Masks of the sky and of the ground, bool `[256, 256]` each."""
    sky = torch.zeros(PICTURE_SIZE, PICTURE_SIZE, dtype=torch.bool)
    ground = sky.clone()
    sky[:EDGE] = sky[:-4 * EDGE, :EDGE] = sky[:-4 * EDGE, -EDGE:] = True
    ground[-EDGE:, :CORNER] = ground[-EDGE:, -CORNER:] = True
    return sky, ground
