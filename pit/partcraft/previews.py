"""Pictures of what has been found: parts in colors over the pictures that they are in."""
from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from ..images import on_white

STRENGTH = 0.55  # of the colors
GOLDEN = 0.61803  # a turn by this share of the circle keeps any number of hues apart


def part_colors(count: int) -> list[tuple[int, int, int]]:
    """A color for each part, the same whatever their number."""
    hues = [(number * GOLDEN) % 1 for number in range(count)]
    return [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.85, 1)) for hue in hues]


def colored_parts(image: Image.Image, labels: Tensor, background_part: int | None = None) -> Image.Image:
    """A picture with each part `[h,w]` in its color; the background keeps its own and becomes darker."""
    numbers = labels.cpu().numpy()
    colors = np.array(part_colors(int(numbers.max()) + 1), dtype=np.uint8)[numbers]
    if background_part is not None:
        colors[numbers == background_part] = 0
    # Not smoothed: the edges of the places show how fine the parts are.
    over = Image.fromarray(colors).resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(on_white(image), over, STRENGTH)


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """The parts and their colors, as `#rrggbb`."""
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*color))
        for name, color in zip(names, part_colors(len(names)), strict=True)
    ]
