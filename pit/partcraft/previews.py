"""Pictures of what has been found: parts in colors over the pictures that they are in."""
from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from ..images import on_white

STRENGTH = 0.55  # of the colors
DARK = "#444444"
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


def masks_over(masks: Tensor, size: tuple[int, int], box: tuple[int, int, int, int]) -> Tensor:
    """Masks `[M,h,w]` of what lies within a box of a picture, as masks of the whole picture, `[M,H,W]`.

    Args:
        size: width and height of the picture.
        box: left, top, right and bottom.
    """
    left, top, right, bottom = box
    whole = masks.new_zeros(len(masks), size[1], size[0])
    # Not smoothed, so that the masks do not overlap.
    whole[:, top:bottom, left:right] = interpolate(masks[None], (bottom - top, right - left))[0]
    return whole


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """The parts and their colors, as `#rrggbb`."""
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*color))
        for name, color in zip(names, part_colors(len(names)), strict=True)
    ]


def legend_picture(
    names: Sequence[str], width: int, height: int, background_part: int | None = None
) -> Image.Image:
    """The legend as a picture: a square in the color of each part, and its name; dark for the background."""
    picture = Image.new("RGB", (width, height), "white")
    draw, line = ImageDraw.Draw(picture), max(8, height // max(len(names), 1))
    side = min(line, 24)
    font = ImageFont.load_default(max(8, round(side * 0.6)))
    for number, (name, color) in enumerate(legend(names)):
        top = number * line
        fill = DARK if number == background_part else color
        draw.rectangle((2, top + 2, side - 2, top + side - 2), fill=fill)
        draw.text((side + 4, top + side / 2), name, "#333333", font, anchor="lm")
    return picture


def highlighted(image: Image.Image, mask: Tensor) -> Image.Image:
    """A picture that keeps its brightness where a soft mask `[H,W]` is 1, and is dark where it is 0."""
    light = Image.fromarray(((0.2 + 0.8 * mask.clamp(0, 1)) * 255).round().byte().cpu().numpy())
    return Image.composite(on_white(image), Image.new("RGB", image.size), light.resize(image.size))
