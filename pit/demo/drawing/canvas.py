"""A supersampled canvas of 100 x 100 units (y points down), and the curves that are drawn on it."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, ...]
Points = Sequence[tuple[float, float]]

INK: Color = (44, 28, 54)
WHITE: Color = (255, 255, 255)


def smooth(points: Points, steps: int = 6) -> np.ndarray:
    """A closed Catmull-Rom curve through the points, `steps` points for each of them, `[steps * N, 2]`."""
    here = np.asarray(points, float)
    before, after, later = np.roll(here, 1, 0), np.roll(here, -1, 0), np.roll(here, -2, 0)
    t = (np.arange(steps) / steps)[:, None, None]
    curve = 0.5 * (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - later) * t**2
        + (3 * here - before - 3 * after + later) * t**3
    )
    # [steps, N, 2] to the order along the curve: all steps of the first segment, then of the second.
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float | None = None, count: int = 28
) -> np.ndarray:
    """An ellipse as a polygon of `count` points, `[count, 2]`; the first is the rightmost."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + (radius_y or radius_x) * np.sin(angle)], 1)


def bezier(*controls: tuple[float, float], count: int = 10) -> np.ndarray:
    """A Bezier curve through its first and last control point, `[count, 2]`; three are a quadratic one."""
    t = np.linspace(0, 1, count)[:, None]
    order = len(controls) - 1
    return sum(
        math.comb(order, i) * (1 - t) ** (order - i) * t**i * np.asarray(c, float)
        for i, c in enumerate(controls)
    )


def tube(spine: Points, widths: Sequence[float]) -> np.ndarray:
    """The outline of a tube along a spine `[N, 2]`, `[2 N, 2]`; `widths` holds N half widths."""
    spine, widths = np.asarray(spine, float), np.asarray(widths, float)[:, None]
    tangent = np.gradient(spine, axis=0)
    # Repeated points of a spine have no direction, and must not lead to a division by zero.
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    return np.concatenate([spine + normal * widths, (spine - normal * widths)[::-1]])


def blend(first: Color, second: Color, amount: float) -> Color:
    return tuple(int(round(a * (1 - amount) + b * amount)) for a, b in zip(first, second, strict=True))


def lighter(color: Color, amount: float = 0.45) -> Color:
    return blend(color, WHITE, amount)


def darker(color: Color, amount: float = 0.3) -> Color:
    return blend(color, (46, 22, 70), amount)


def outline_of(color: Color) -> Color:
    return blend(color, (36, 22, 48), 0.7)


class Canvas:
    """A transparent picture of `pixels` x `pixels`, drawn larger and reduced by `supersample` at the end.

    All coordinates and widths are in units, of which a side has 100.
    """

    def __init__(self, pixels: int, supersample: int):
        self.size, self.supersample = pixels * supersample, supersample
        self.scale = self.size / 100
        self.image = Image.new("RGBA", (self.size, self.size), (255, 255, 255, 0))
        self.pen = ImageDraw.Draw(self.image)

    def shape(
        self, points: Points, fill: Color | None, line: Color | None = None, width: float = 2.4
    ) -> None:
        points = np.asarray(points, float) * self.scale
        path = list(map(tuple, points.tolist()))
        if fill is not None:
            self.pen.polygon(path, fill=fill)
        if line is not None:
            # In small pictures lines must not vanish.
            thick = max(1, round(width * self.scale))
            # Pillow rounds only the inner joints of a line: with one more segment the closing corner is one.
            self.pen.line(path + path[:2], fill=line, width=thick, joint="curve")

    def stroke(self, points: Points, color: Color, width: float) -> None:
        points = np.asarray(points, float) * self.scale
        path, thick = list(map(tuple, points.tolist())), max(1, round(width * self.scale))
        self.pen.line(path, fill=color, width=thick, joint="curve")
        for x, y in (path[0], path[-1]):  # Pillow has no round line ends
            self.pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=color)

    def dot(self, x: float, y: float, radius_x: float, color: Color, radius_y: float | None = None) -> None:
        k, radius_y = self.scale, radius_y or radius_x
        box = ((x - radius_x) * k, (y - radius_y) * k, (x + radius_x) * k, (y + radius_y) * k)
        self.pen.ellipse(box, fill=color)

    def clipped(self, mask_points: Points, draw: Callable[[], None]) -> None:
        """Run draw(), keeping only what falls inside the polygon."""
        # Pillow cannot clip, so draw() paints on a copy, of which the inside is taken over.
        mask = Image.new("L", (self.size, self.size), 0)
        path = list(map(tuple, (np.asarray(mask_points) * self.scale).tolist()))
        ImageDraw.Draw(mask).polygon(path, fill=255)
        image, pen = self.image, self.pen
        self.image = image.copy()
        self.pen = ImageDraw.Draw(self.image)
        draw()
        layer, self.image, self.pen = self.image, image, pen
        self.image.paste(layer, (0, 0), mask)

    def finish(self) -> Image.Image:
        """The picture at its final size (RGBA)."""
        return self.image.reduce(self.supersample)
