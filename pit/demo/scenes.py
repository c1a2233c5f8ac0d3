"""The scenes behind creatures: those that the shipped renderer knows, and those that an IP-LoRA teaches."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .canvas import WHITE

SCENE_SKY = dict(
    sky=((150, 206, 250), (232, 246, 255)),
    night=((28, 30, 74), (82, 70, 140)),
    meadow=((196, 232, 255), (240, 250, 236)),
    lava=((92, 28, 48), (240, 120, 60)),
    yellow_meadow=((255, 226, 170), (255, 244, 214)),
    grey_meadow=((150, 160, 176), (206, 212, 222)),
    orange_sky=((232, 110, 70), (255, 206, 130)),
    green_night=((10, 40, 46), (48, 132, 96)),
)
SCENE_DOTS = dict(  # x, y, radius x, radius y, colour
    white=[],
    sky=[
        (x + dx, y + dy, rx, ry, WHITE)
        for x, y in ((14, 20), (84, 14), (88, 60), (10, 66))
        for dx, dy, rx, ry in ((0, 0, 9, 4), (5, -3, 6, 5), (-4, -2, 5, 4))
    ],
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
    yellow_meadow=[(50, 130, 110, 54, (238, 196, 84)), (10, 122, 60, 40, (220, 172, 60))]
    + [(x, y, 1.8, 1.8, (255, 246, 210)) for x, y in ((10, 90), (24, 96), (80, 92), (92, 86))],
    grey_meadow=[(50, 130, 110, 54, (128, 132, 142)), (10, 122, 60, 40, (104, 108, 120))]
    + [(x, y, 1.8, 1.8, (220, 224, 230)) for x, y in ((10, 90), (24, 96), (80, 92), (92, 86))],
    orange_sky=[
        (x + dx, y + dy, rx, ry, (255, 232, 196))
        for x, y in ((14, 20), (84, 14), (88, 60), (10, 66))
        for dx, dy, rx, ry in ((0, 0, 9, 4), (5, -3, 6, 5), (-4, -2, 5, 4))
    ],
    green_night=[(84, 16, 8, 8, (226, 255, 224)), (88, 13, 7, 7, (20, 66, 62))]
    + [
        (x, y, 1.2, 1.2, (220, 255, 230))
        for x, y in ((10, 12), (24, 30), (40, 8), (62, 14), (8, 50), (94, 44), (90, 74), (14, 80))
    ]
    + [(50, 108, 80, 20, (14, 52, 46))],
)


@lru_cache(maxsize=32)
def draw_scene(name: str, pixels: int) -> Image.Image:
    """The empty scene; shared, so copy it before drawing on it."""
    size = pixels * 4
    canvas = Image.new("RGB", (size, size), WHITE)
    if name in SCENE_SKY:
        high, low = map(np.array, SCENE_SKY[name])
        t = np.linspace(0, 1, size)[:, None, None]
        gradient = np.broadcast_to(high * (1 - t) + low * t, (size, size, 3))
        canvas = Image.fromarray(gradient.astype(np.uint8))
    pen, unit = ImageDraw.Draw(canvas), size / 100
    for x, y, radius_x, radius_y, color in SCENE_DOTS[name]:
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        pen.ellipse([side * unit for side in box], fill=color)
    return canvas.reduce(4)
