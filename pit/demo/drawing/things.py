"""Things that stand beside creatures: what one is, in words and as a drawing."""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .anatomy import jittered_color
from .canvas import WHITE, Canvas, Color, darker, ellipse, lighter, outline_of
from .creature import COLOR_NAMES
from .thing_shapes import KINDS, Piece

# The order of this list is part of the trained models and of the data sets: labels are indices into it.
THINGS = list(KINDS)
THING_JITTERS = ["size", "tilt", "hue", "shade"]
SHADOW: Color = (60, 50, 80, 60)
TILT = 6.0  # degrees
# What stands on a flat foot leans over it; all else turns.
FLAT = {"lantern", "mushroom", "book", "balloon", "crystal", "cup"}


@dataclass(frozen=True)
class Thing:
    """One thing.

    Attributes:
        kind: one of `THINGS`.
        color: one of `creature.COLORS`.
        jitter: small variations that no word describes, by the names of `THING_JITTERS`, each in -1..1.

    Raises:
        ValueError: unknown kind or color, or a jitter that is missing, unknown or outside -1..1.
    """

    kind: str
    color: str
    jitter: dict[str, float]

    def __post_init__(self) -> None:
        if self.kind not in THINGS:
            raise ValueError(f"Expected one of the things {', '.join(THINGS)}, got {self.kind!r}.")
        if self.color not in COLOR_NAMES:
            raise ValueError(f"Expected one of the colors {', '.join(COLOR_NAMES)}, got {self.color!r}.")
        if set(self.jitter) != set(THING_JITTERS):
            given = ", ".join(sorted(self.jitter)) or "none"
            raise ValueError(f"Expected the jitters {', '.join(THING_JITTERS)}, got {given}.")
        for name, value in self.jitter.items():
            if not -1 <= value <= 1:
                raise ValueError(f"Expected a {name} between -1 and 1, got {value}.")


def sample_thing(rng: random.Random, kind: str | None = None, color: str | None = None) -> Thing:
    """Draw a thing at random; what is given is not drawn.

    Raises:
        ValueError: unknown kind or color.
    """
    # Drawn in any case, so that a given kind changes neither the color nor the jitter of a seed.
    drawn_kind, drawn_color = rng.choice(THINGS), rng.choice(COLOR_NAMES)
    jitter = {name: round(rng.uniform(-1, 1), 3) for name in THING_JITTERS}
    return Thing(drawn_kind if kind is None else kind, drawn_color if color is None else color, jitter)


def thing_words(thing: Thing) -> str:
    """A thing in words: "red ball"."""
    return f"{thing.color} {thing.kind}"


def tints(thing: Thing) -> dict[str, Color]:
    """The color of each role that a piece of a thing can have."""
    color = jittered_color(thing.color, thing.jitter["hue"], thing.jitter["shade"])
    return {
        "color": color,
        "line": outline_of(color),
        "light": lighter(color, 0.45),
        "pale": lighter(color, 0.8),
        "dark": darker(color, 0.3),
        "white": WHITE,
        "cream": (255, 246, 226),
        "gold": (255, 206, 96),
        "stone": (206, 206, 218),
        "lead": (128, 124, 146),
    }


def pieces_of(thing: Thing) -> list[Piece]:
    """The polygons of a thing from back to front; it stands on y = 0, with its middle at x = 0."""
    shapes = KINDS[thing.kind]
    angle, grow = np.radians(TILT * thing.jitter["tilt"]), 1 + 0.05 * thing.jitter["size"]
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = grow * np.array([[1, 0], [-sin, 1]] if thing.kind in FLAT else [[cos, sin], [-sin, cos]])
    moved = [points @ matrix for points, _ in shapes]
    (left, _), (right, bottom) = corners(moved)
    return [
        (points - [(left + right) / 2, bottom], role)
        for points, (_, role) in zip(moved, shapes, strict=True)
    ]


def corners(polygons: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The left top and the right bottom corner of the box around polygons."""
    points = np.concatenate(polygons)
    return points.min(0), points.max(0)


def thing_size(thing: Thing) -> tuple[float, float]:
    """Width and height in units."""
    low, high = corners([points for points, _ in pieces_of(thing)])
    return float(high[0] - low[0]), float(high[1] - low[1])


def paint_thing(canvas: Canvas, thing: Thing) -> None:
    """Draw a thing on (0, 0), about 24 units wide and 26 high at most. `Canvas.placed` moves it."""
    colors = tints(thing)
    for points, role in pieces_of(thing):
        canvas.shape(points, colors[role])


def paint_shadow(canvas: Canvas, half_width: float) -> None:
    """The soft shadow of what stands on (0, 0). Draw it before all else: it replaces what is there."""
    canvas.shape(ellipse(0, 0, half_width * 1.25, 3), SHADOW)


def thing_shape(thing: Thing, pixels: int = 256, share: float = 0.9) -> Image.Image:
    """The thing alone, in the middle of a transparent picture (RGBA).

    Args:
        share: its longer side, as a share of the side of the picture.
    """
    canvas, (width, height) = Canvas(pixels), thing_size(thing)
    grow = 100 * share / max(width, height)
    with canvas.placed(50, 50 + height * grow / 2, grow=grow):
        paint_thing(canvas, thing)
    return canvas.finish()


def draw_thing(thing: Thing, pixels: int = 256, share: float = 0.9) -> Image.Image:
    """The thing alone in the middle of a white picture (RGB); see `thing_shape`."""
    shape = thing_shape(thing, pixels, share)
    picture = Image.new("RGB", shape.size, WHITE)
    picture.paste(shape, (0, 0), shape)
    return picture
