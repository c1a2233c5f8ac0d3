"""Pictures of creatures and of their parts, and the scenes behind them."""
from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .anatomy import start_sketch
from .canvas import WHITE, ellipse
from .creature import PARTS, Creature
from .head import paint_ears, paint_eyes, paint_horns, paint_mouth
from .limbs import paint_arms, paint_body, paint_legs, paint_tail, paint_wings
from .sizes import ENCODER_SIZE

PAINTERS = {  # from back to front
    "wings": paint_wings,
    "tail": paint_tail,
    "ears": paint_ears,
    "horns": paint_horns,
    "legs": paint_legs,
    "body": paint_body,
    "arms": paint_arms,
    "eyes": paint_eyes,
    "mouth": paint_mouth,
}
SCENE_SKY = dict(
    sky=((150, 206, 250), (232, 246, 255)),
    night=((28, 30, 74), (82, 70, 140)),
    meadow=((196, 232, 255), (240, 250, 236)),
    lava=((92, 28, 48), (240, 120, 60)),
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
)


def draw_shape(creature: Creature, pixels: int, supersample: int, only: str | None = None) -> Image.Image:
    """The creature, or one part of it, on a transparent ground (RGBA)."""
    sketch = start_sketch(creature, pixels, supersample, only)
    if only is None:
        sketch.canvas.shape(ellipse(50, 94, sketch.width * 1.25, 3), (60, 50, 80, 60))
    for part, paint in PAINTERS.items():
        if only in (None, part) and creature.attributes[part] != "none":
            paint(sketch)
    return sketch.canvas.finish()


def draw_creature(creature: Creature, pixels: int = 128, supersample: int = 2) -> Image.Image:
    """The whole creature in its scene (RGB)."""
    picture = draw_shape(creature, pixels, supersample)
    backdrop = draw_scene(creature.scene, pixels).copy()
    backdrop.paste(picture, (0, 0), picture)
    return backdrop


def encoder_view(shape: Image.Image) -> Image.Image:
    """A whole creature from `draw_shape` on white, at the size that the image encoder looks at (RGB)."""
    plain = Image.new("RGB", shape.size, WHITE)
    plain.paste(shape, (0, 0), shape)
    return plain.resize((ENCODER_SIZE, ENCODER_SIZE), Image.Resampling.BICUBIC)


def draw_part(creature: Creature, part: str, pixels: int = 64, *, share: float = 0.9,
              rng: random.Random | None = None) -> Image.Image:
    """One part alone on a white square (RGB).

    Args:
        share: the longer side of the part, as a share of the square.
        rng: places the part at random; without it, in the centre.
    Raises:
        ValueError: no such part, or this creature has none.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}; there are {', '.join(PARTS)}")
    if creature.attributes[part] == "none":
        raise ValueError(f"this creature has no {part}; it has {', '.join(creature.parts)}")
    drawn = draw_shape(creature, pixels * 2, 2, only=part)
    crop = drawn.crop(drawn.getbbox())
    scale = pixels * share / max(crop.size)
    crop = crop.resize([max(1, round(side * scale)) for side in crop.size], Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (pixels, pixels), WHITE)
    free = [pixels - side for side in crop.size]
    frame.paste(crop, tuple(side // 2 if rng is None else rng.randint(0, side) for side in free), crop)
    return frame


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
