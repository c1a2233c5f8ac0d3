"""A supersampled canvas of 100 x 100 units (y points down), and the curves that are drawn on it."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, ...]
Points = Sequence[tuple[float, float]]

INK: Color = (44, 28, 54)
WHITE: Color = (255, 255, 255)
SUPERSAMPLE = 2  # how many times as large a picture is drawn


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


def most_of_each(values: np.ndarray, block: int) -> np.ndarray:
    """The value that fills most of each block of `block` x `block` numbers; of equal ones the largest.

    `[block * N, block * N]` to `[N, N]`.
    """
    side, kinds = len(values) // block, np.unique(values)[::-1]
    blocks = values.reshape(side, block, side, block)
    filled = np.stack([(blocks == kind).sum(axis=(1, 3)) for kind in kinds])
    return kinds[filled.argmax(axis=0)]


class Canvas:
    """A transparent picture of `pixels` x `pixels`, drawn larger and reduced by `supersample` at the end.

    All coordinates and widths are in units, of which a side has 100. With `labeled` it also keeps a map of
    what was drawn last at each place: every shape counts as the `label` that is set while it is drawn.
    """

    def __init__(self, pixels: int, supersample: int = SUPERSAMPLE, labeled: bool = False):
        self.size, self.supersample = pixels * supersample, supersample
        self.image = Image.new("RGBA", (self.size, self.size), (255, 255, 255, 0))
        self.pen = ImageDraw.Draw(self.image)
        self.map = Image.new("L", (self.size, self.size), 0) if labeled else None
        self.map_pen = ImageDraw.Draw(self.map) if labeled else None
        self.label = 0
        self._matrix = np.array([[1.0, 0, 0], [0, 1, 0]]) * (self.size / 100)

    @property
    def scale(self) -> float:
        """Pixels of the enlarged picture to a unit of what is drawn now."""
        return float(np.sqrt(abs(np.linalg.det(self._matrix[:, :2]))))

    @contextmanager
    def placed(
        self, x: float = 0, y: float = 0, *, grow: float = 1, turn: float = 0, mirrored: bool = False,
        around: tuple[float, float] = (0, 0),
    ) -> Iterator[None]:
        """Draw what follows enlarged, turned clockwise by `turn` degrees and mirrored `around` a point.

        Then it is moved by (x, y). The inner of two such blocks happens first.
        """
        before, angle = self._matrix, math.radians(turn)
        cos, sin = grow * math.cos(angle), grow * math.sin(angle)
        turned = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1 if mirrored else 1, 1])
        shift = np.array([around[0] + x, around[1] + y]) - turned @ around
        self._matrix = np.column_stack([before[:, :2] @ turned, before[:, :2] @ shift + before[:, 2]])
        try:
            yield
        finally:
            self._matrix = before

    def shape(
        self, points: Points, fill: Color | None, line: Color | None = None, width: float = 2.4
    ) -> None:
        path = self._path(points)
        if fill is not None:
            self._polygon(path, fill)
        if line is not None:
            # Pillow rounds only the inner joints of a line: with one more segment the closing corner is one.
            self._line(path + path[:2], line, width)

    def stroke(self, points: Points, color: Color, width: float) -> None:
        path, radius = self._path(points), self._thick(width) / 2
        self._line(path, color, width)
        for x, y in (path[0], path[-1]):  # Pillow has no round line ends
            self._ellipse((x - radius, y - radius, x + radius, y + radius), color)

    def dot(self, x: float, y: float, radius_x: float, color: Color, radius_y: float | None = None) -> None:
        radius_y = radius_y or radius_x
        if self._matrix[0, 1] or self._matrix[1, 0]:  # Pillow's ellipses cannot be turned
            self._polygon(self._path(ellipse(x, y, radius_x, radius_y, 36)), color)
        else:
            corners = self._path([(x - radius_x, y - radius_y), (x + radius_x, y + radius_y)])
            (left, top), (right, bottom) = corners
            self._ellipse((min(left, right), top, max(left, right), bottom), color)

    def _path(self, points: Points) -> list[tuple[float, float]]:
        moved = np.asarray(points, float) @ self._matrix[:, :2].T + self._matrix[:, 2]
        return list(map(tuple, moved.tolist()))

    def _thick(self, width: float) -> int:
        # In small pictures lines must not vanish.
        return max(1, round(width * self.scale))

    def _polygon(self, path: list[tuple[float, float]], color: Color) -> None:
        self.pen.polygon(path, fill=color)
        if self.map_pen:
            self.map_pen.polygon(path, fill=self.label)

    def _line(self, path: list[tuple[float, float]], color: Color, width: float) -> None:
        thick = self._thick(width)
        self.pen.line(path, fill=color, width=thick, joint="curve")
        if self.map_pen:
            self.map_pen.line(path, fill=self.label, width=thick, joint="curve")

    def _ellipse(self, box: tuple[float, float, float, float], color: Color) -> None:
        self.pen.ellipse(box, fill=color)
        if self.map_pen:
            self.map_pen.ellipse(box, fill=self.label)

    def clipped(self, mask_points: Points, draw: Callable[[], None]) -> None:
        """Run draw(), keeping only what falls inside the polygon, all of which has a label already."""
        # Pillow cannot clip, so draw() paints on a copy, of which the inside is taken over.
        path = self._path(mask_points)
        corners = np.array(path)
        left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, self.size).tolist()
        right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, self.size).tolist()
        mask = Image.new("L", (self.size, self.size), 0)
        ImageDraw.Draw(mask).polygon(path, fill=255)
        image, pen, map_pen = self.image, self.pen, self.map_pen
        self.image, self.map_pen = image.copy(), None
        self.pen = ImageDraw.Draw(self.image)
        draw()
        layer, self.image, self.pen, self.map_pen = self.image, image, pen, map_pen
        box = (left, top, right, bottom)
        self.image.paste(layer.crop(box), (left, top), mask.crop(box))

    def finish(self) -> Image.Image:
        """The picture at its final size (RGBA)."""
        return self.image.reduce(self.supersample)

    def finish_map(self) -> np.ndarray:
        """The labels at the final size, uint8 `[pixels, pixels]`: the one that covers most of each pixel.

        Raises:
            ValueError: this canvas keeps no labels.
        """
        return most_of_each(self._labels(), self.supersample)

    def finish_masks(self, labels: Sequence[int]) -> np.ndarray:
        """How much of each pixel each label covers, float32 `[L, pixels, pixels]` in 0..1.

        Raises:
            ValueError: this canvas keeps no labels.
        """
        side, block = self.size // self.supersample, self.supersample
        found = self._labels().reshape(side, block, side, block)
        return np.stack([(found == label).mean(axis=(1, 3), dtype=np.float32) for label in labels])

    def _labels(self) -> np.ndarray:
        if self.map is None:
            raise ValueError("Expected a canvas with labels, got one without. Create it with labeled=True.")
        return np.asarray(self.map)
