"""The grounds that creatures and things stand on: twelve scenes, any two of them mixed, and plain colors."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from . import scenery
from .canvas import WHITE, Canvas, Color

Painter = Callable[[Canvas], None]


def paint_nothing(canvas: Canvas) -> None:
    pass


@dataclass(frozen=True)
class Scene:
    """Two layers: what is above, and the ground. What stands in it stands at y = 94."""

    high: Color  # the color at the top of the picture, which blends into the one at its bottom
    low: Color
    above: Painter = paint_nothing
    ground: Painter = paint_nothing


SCENE = {
    "sky": Scene((150, 206, 250), (232, 246, 255), scenery.paint_sky),
    "night": Scene((28, 30, 74), (82, 70, 140), scenery.paint_night_sky, scenery.paint_night),
    "meadow": Scene((196, 232, 255), (240, 250, 236), ground=scenery.paint_meadow),
    "lava": Scene((92, 28, 48), (240, 120, 60), ground=scenery.paint_lava),
    "snow": Scene((170, 178, 216), (226, 226, 244), scenery.paint_snow_sky, scenery.paint_snow),
    "desert": Scene((255, 214, 140), (255, 240, 200), scenery.paint_desert_sky, scenery.paint_desert),
    "beach": Scene((96, 200, 232), (206, 242, 244), scenery.paint_beach_sky, scenery.paint_beach),
    "forest": Scene((60, 108, 76), (150, 184, 112), scenery.paint_forest_sky, scenery.paint_forest),
    "cave": Scene((50, 44, 46), (128, 108, 98), scenery.paint_cave_sky, scenery.paint_cave),
    "sea": Scene((44, 164, 186), (14, 82, 132), scenery.paint_sea_sky, scenery.paint_sea),
    "swamp": Scene((176, 176, 116), (118, 130, 76), scenery.paint_swamp_sky, scenery.paint_swamp),
    "candy": Scene((255, 190, 226), (255, 232, 246), scenery.paint_candy_sky, scenery.paint_candy),
}
SCENE_NAMES = ["white", *SCENE]  # the order is part of the trained models: labels are indices into it


@lru_cache(maxsize=32)  # 6 MB at most, which stay: it takes far longer to draw a scene than a creature
def draw_scene(name: str, pixels: int) -> Image.Image:
    """The empty scene (RGB). The picture is shared: copy it before drawing on it.

    Args:
        name: one of `SCENE_NAMES`, or two scenes of `SCENE` such as "night_meadow": all but the ground of the
            first, and the ground of the second.
    Raises:
        ValueError: there is no such scene.
    """
    if name == "white":
        return plain_scene(WHITE, pixels)
    above, _, below = name.partition("_")
    if above not in SCENE or (below or above) not in SCENE or name.endswith("_"):
        raise ValueError(
            f"Expected one of the scenes {', '.join(SCENE_NAMES)}, or two but white as in night_meadow, "
            f"got {name!r}."
        )
    # Four times as large, because Pillow draws ellipses with jagged edges.
    canvas = Canvas(pixels, 4)
    paint_gradient(canvas, SCENE[above].high, SCENE[above].low)
    SCENE[above].above(canvas)
    SCENE[below or above].ground(canvas)
    return canvas.finish().convert("RGB")


def paint_gradient(canvas: Canvas, high: Color, low: Color) -> None:
    t = np.linspace(0, 1, canvas.size)[:, None, None]
    column = (np.array(high) * (1 - t) + np.array(low) * t).astype(np.uint8)
    stripe = Image.fromarray(column, "RGB")
    canvas.image.paste(stripe.resize(canvas.image.size, Image.Resampling.NEAREST))


def plain_scene(color: Color, pixels: int) -> Image.Image:
    """A ground of one color (RGB).

    Raises:
        ValueError: the color is not three whole numbers from 0 to 255.
    """
    whole = all(isinstance(value, int | np.integer) and 0 <= value <= 255 for value in color)
    if len(color) != 3 or not whole:
        raise ValueError(f"Expected three whole numbers from 0 to 255 as a color, got {tuple(color)}.")
    return Image.new("RGB", (pixels, pixels), tuple(map(int, color)))
