"""Where things are on a creature: the outline of its body, and what every painter works with."""
from __future__ import annotations

import colorsys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Color, Points, ellipse, smooth
from .creature import COLORED, COLORS, Creature
from .pose import LIMBS, SIDE, Limb, Pose

Placer = Callable[..., Points]


@dataclass
class Figure:
    """What every painter of a part needs: the canvas, the attributes, and where the body is."""

    canvas: Canvas
    styles: dict[str, str]
    jitter: dict[str, float]
    colors: dict[str, Color]
    pose: Pose
    limbs: dict[str, tuple[Limb, ...]]
    x: float
    y: float
    width: float  # half width of the body
    height: float  # half height of the body
    outline: np.ndarray

    @property
    def top(self) -> float:
        return self.y - self.height

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def posed(self, part: str, limb: Limb, root_x: float, root_y: float) -> AbstractContextManager[None]:
        """Draw what follows turned around its root as the pose has it; the root is in the body's place."""
        turn = (limb.swing or limb.side) * self.pose.turn(part)
        return self.canvas.placed(turn=turn, grow=self.pose.shrink(part), around=(root_x, root_y))

    def placer(self, side: int, origin_x: float, origin_y: float, grow: float) -> Placer:
        """A function that moves points to an origin, scaled by `grow`; side -1 mirrors them to the left.

        The origin's x counts from the middle of the body; the points are given for the right side.
        """
        def at(*points):
            return [(self.x + side * (origin_x + px * grow), origin_y + py * grow) for px, py in points]

        return at


def body_outline(style: str, x: float, y: float, width: float, height: float) -> np.ndarray:
    """The body's closed outline around (x, y), given its half width and half height."""
    top, bottom = y - height, y + height

    def both(*points):
        # A point on the axis is not mirrored: doubled, it would lose its level tangent and make a kink.
        right = [(x + px * width, py) for px, py in points]
        return smooth(right + [(x - px * width, py) for px, py in points[::-1] if px > 0])

    if style == "round":
        return ellipse(x, y, width * 1.08, height, 36)
    if style == "pear":
        return both(
            (0, top), (0.6, y - height * 0.72), (0.76, y - height * 0.1), (1.22, y + height * 0.5),
            (0.75, bottom - 1), (0, bottom),
        )
    if style == "tall":
        return both(
            (0, top), (0.8, top + 4), (0.98, y - height * 0.3), (0.98, y + height * 0.5), (0.8, bottom - 2),
            (0, bottom),
        )
    if style == "boxy":
        return both((0.55, top), (1.05, top + 2), (1.13, y), (1.1, bottom - 2), (0.6, bottom))
    # The ghost's hem: nine points from right to left, 8 steps of 0.2625 over twice 1.05 half widths.
    hem = [(x + width * (1.05 - i * 0.2625), bottom + (4 if i % 2 == 0 else -4)) for i in range(9)]
    left = [(x - width * 0.8, top + height * 0.38), (x - width, y + height * 0.2)]
    right = [(x + width, y + height * 0.2), (x + width * 0.8, top + height * 0.38)]
    return smooth([(x, top), *left, *hem[::-1], *right])


def jittered_color(name: str, hue: float, shade: float) -> Color:
    """A color of the palette, shifted a little in hue, saturation and brightness."""
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in COLORS[name]))
    # 0.008 of the circle of hues is 3 degrees; the nearest two colors, orange and yellow, are 18 apart.
    h, s, v = (h + 0.008 * hue) % 1, min(1, max(0, s * (1 + 0.06 * shade))), min(1, v * (1 + 0.03 * hue))
    return tuple(int(channel * 255) for channel in colorsys.hsv_to_rgb(h, s, v))


def start_figure(creature: Creature, canvas: Canvas, only: str | None = None) -> Figure:
    """A canvas with the proportions of the creature; `only` names a part that is drawn alone."""
    values, jitter, pose = creature.attributes, creature.jitter, creature.pose
    # The body lies below the middle of the picture: ears and horns need more room than legs do.
    width, height, y = 20.5 + 1.6 * jitter["width"], 23 + 1.6 * jitter["height"], 58.5
    if values["body"] == "tall":
        width, height = width * 0.84, height * 1.1
    if pose.view == SIDE:
        width *= 0.88
    hue, shade = jitter["hue"], jitter["shade"]
    return Figure(
        canvas=canvas,
        styles=values,
        jitter=jitter,
        colors={slot: jittered_color(values[f"{slot}_color"], hue, shade) for slot in COLORED},
        pose=pose,
        # Of wings, ears and arms a single one stands for the part.
        limbs={
            part: limbs[-1:] if part == only and part in ("wings", "ears", "arms") else limbs
            for part, limbs in LIMBS[pose.view].items()
        },
        x=50,
        y=y,
        width=width,
        height=height,
        outline=body_outline(values["body"], 50, y, width, height),
    )
