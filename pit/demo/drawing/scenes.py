"""The scenes behind creatures: those that the shipped models know, and those that an IP-LoRA teaches."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .canvas import WHITE

SCENE_SKY = dict(  # the colors at the top and at the bottom of the picture
    sky=((150, 206, 250), (232, 246, 255)),
    night=((28, 30, 74), (82, 70, 140)),
    meadow=((196, 232, 255), (240, 250, 236)),
    lava=((92, 28, 48), (240, 120, 60)),
)
SCENE_DOTS = dict(  # ellipses: x, y, radius x, radius y, color
    white=[],
    sky=[
        (x + dx, y + dy, rx, ry, WHITE)
        for x, y in ((14, 20), (84, 14), (88, 60), (10, 66))
        for dx, dy, rx, ry in ((0, 0, 9, 4), (5, -3, 6, 5), (-4, -2, 5, 4))
    ],
    # The second disk, in the color of the sky, cuts a crescent out of the moon.
    night=[(84, 16, 8, 8, (255, 244, 200)), (88, 13, 7, 7, (44, 42, 92))]
    + [
        (x, y, 1.2, 1.2, (255, 250, 220))
        for x, y in ((10, 12), (24, 30), (40, 8), (62, 14), (8, 50), (94, 44), (90, 74), (14, 80))
    ]
    + [(50, 108, 80, 20, (40, 34, 70))],
    meadow=[(50, 130, 110, 54, (134, 204, 104)), (10, 122, 60, 40, (112, 188, 96))]
    + [(x, y, 1.8, 1.8, WHITE) for x, y in ((10, 90), (24, 96), (80, 92), (92, 86))],
    lava=[(50, 116, 90, 28, (70, 26, 40))]
    + [(x, y, 8, 1.8, (255, 180, 60)) for x, y in ((12, 92), (86, 94), (30, 97))],
)

# The sky of one scene over the ground of another: nothing in them is new to the autoencoder, which turned
# yellow and gray meadows and an orange sky pink.
MIXED_SCENES = {
    "night_meadow": ("night", "meadow"),
    "lava_meadow": ("lava", "meadow"),
    "night_lava": ("night", "lava"),
    "sky_lava": ("sky", "lava"),
}
HORIZON = 85  # what has its middle below it belongs to the ground


@lru_cache(maxsize=32)
def draw_scene(name: str, pixels: int) -> Image.Image:
    """The empty scene (RGB). The picture is shared: copy it before drawing on it."""
    above, below = MIXED_SCENES.get(name, (name, name))
    # Four times as large, because Pillow draws ellipses with jagged edges.
    size = pixels * 4
    canvas = Image.new("RGB", (size, size), WHITE)
    if above in SCENE_SKY:
        high, low = map(np.array, SCENE_SKY[above])
        t = np.linspace(0, 1, size)[:, None, None]
        gradient = np.broadcast_to(high * (1 - t) + low * t, (size, size, 3))
        canvas = Image.fromarray(gradient.astype(np.uint8))
    pen, unit = ImageDraw.Draw(canvas), size / 100
    for x, y, radius_x, radius_y, color in dots(above, below):
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        pen.ellipse([side * unit for side in box], fill=color)
    return canvas.reduce(4)


def dots(above: str, below: str) -> list[tuple]:
    """What is drawn in the sky of one scene and on the ground of another, from back to front."""
    if above == below:
        return SCENE_DOTS[above]
    high = [dot for dot in SCENE_DOTS[above] if dot[1] < HORIZON]
    return high + [dot for dot in SCENE_DOTS[below] if dot[1] >= HORIZON]
