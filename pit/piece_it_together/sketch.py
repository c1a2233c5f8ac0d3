"""Bezier sketches: the outline of a part redrawn with a few cubic curves.

The published sketches are made with OpenCV. Borders and lines follow its rules here (border following after
Suzuki and Abe 1985, lines as filled quads with round caps in 16.16 fixed point), so that they come out the
same without OpenCV as a requirement.
"""
from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage, optimize

from ..images import on_white

# Eight neighbors, counter-clockwise from the right; y points down.
_DIRECTIONS = np.array([(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)])
_ONE = 1 << 16
_HALF = _ONE >> 1

Point = tuple[int, int]


def bezier_sketch(
    image: Image.Image, *, curves: int, drop_probability: float = 0.0, rng: random.Random
) -> Image.Image:
    """RGB sketch of `image`, of the same size: black cubic curves two pixels wide on white.

    The method of the published PiT repository: about `curves` curves are shared out among the outer contours
    of what is not white, by length; each is dropped with `drop_probability`. Three crashes are fixed: a blank
    picture gives a white sketch; with more contours than curves, the longest `curves` get one curve each; a
    contour with fewer corners than curves is followed pixel by pixel.

    Raises ValueError if `curves` is below 1.
    """
    canvas = np.full((image.height, image.width), 255, np.uint8)
    for segment in sketch_segments(image, curves):
        if rng.random() >= drop_probability:
            draw_cubic(canvas, fit_cubic(segment))
    return Image.fromarray(canvas).convert("RGB")


def sketch_segments(image: Image.Image, curves: int) -> list[np.ndarray]:
    """Pieces of contour `[N,2]` (x, y), one per curve.

    A contour of n points with k curves is cut into pieces of n // k points; what remains is one more piece,
    as published, so that there may be more pieces than `curves`.
    """
    if curves < 1:
        raise ValueError(f"Expected at least one curve for a sketch, got {curves}.")
    borders = outer_borders(foreground(image))
    if len(borders) > curves:
        # Back in their own order, in which the curves to drop are drawn.
        kept = sorted(range(len(borders)), key=lambda i: -_length(borders[i]))[:curves]
        borders = [borders[i] for i in sorted(kept)]
    counts = share_curves([_length(border) for border in borders], curves)
    return [piece for border, count in zip(borders, counts, strict=True) for piece in _cut(border, count)]


def foreground(image: Image.Image) -> np.ndarray:
    """What is not white, `[H,W]` bool, eroded by 8 pixels (a 5x5 square four times)."""
    red, green, blue = np.asarray(on_white(image)).astype(np.int32).transpose(2, 0, 1)
    gray = (9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15  # OpenCV's weights, in 15 bits
    # Four erosions by a 5x5 square are one by 17x17. With "nearest" nothing outside of the picture erodes,
    # as in OpenCV.
    return ndimage.minimum_filter(gray < 255, size=17, mode="nearest")


def outer_borders(mask: np.ndarray) -> list[np.ndarray]:
    """Border pixels `[N,2]` (x, y) of every 8-connected area of `mask` `[H,W]` not inside another's hole.

    Each border starts at its top left pixel and goes down first; the lowest start comes first, as in OpenCV.
    """
    # Padded, so that the outer background is one area and a walk needs no test for the picture's edge. All
    # that is not outer background is filled areas, holes and what is inside them included.
    padded = np.pad(mask, 1)
    background, _ = ndimage.label(~padded)
    areas, _ = ndimage.label(background != background[0, 0], np.ones((3, 3)))
    starts = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(areas), 1):
        x = columns.start + int(np.argmax(areas[rows.start, columns] == label))
        starts.append((rows.start, x))
    pixels = padded.astype(np.uint8).tobytes()
    return [_border(pixels, padded.shape[1], (x, y)) - 1 for y, x in sorted(starts, reverse=True)]


# How curves are fitted, as a note for whatever keeps sketches.
SKETCH_FIT = "curves fitted by Nelder-Mead"


def share_curves(lengths: list[float], total: int) -> list[int]:
    """Number of curves per contour: at least one each, `total` in all, in proportion to `lengths`.

    There must be at most `total` contours.
    """
    if not lengths:
        return []
    whole = sum(lengths) or 1.0
    counts = [min(max(round(length / whole * total), 1), total) for length in lengths]
    # Rounding leaves a difference; as published it goes to the most and to the fewest.
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    while sum(counts) < total:
        counts[counts.index(min(counts))] += 1
    return counts


def fit_cubic(points: np.ndarray) -> np.ndarray:
    """Control points `[4,2]` of the cubic from the first to the last of `points` `[N,2]`.

    The inner two minimize the squared distance at evenly spaced parameters. As published, Nelder-Mead
    searches for this minimum, starting from the points at one and two thirds of the chord. A linear fit would
    find it at once, but not where that search stops: 1e-4 pixels away, or far away where three points leave
    many minima.
    """
    first, last = points[0], points[-1]
    chord = last - first
    weights = _bernstein(len(points))[:, :, None]

    def distance(inner: np.ndarray) -> float:
        curve = weights[:, 0] * first + weights[:, 1] * inner[:2]
        return ((points - (curve + weights[:, 2] * inner[2:] + weights[:, 3] * last)) ** 2).sum()

    start = np.concatenate([first + chord / 3, first + 2 * chord / 3])
    inner = optimize.minimize(distance, start, method="Nelder-Mead").x
    return np.array([first, inner[:2], inner[2:], last])


def draw_cubic(canvas: np.ndarray, control: np.ndarray) -> None:
    """Draw the cubic `control` `[4,2]` in black onto `canvas` `[H,W]` uint8, as a line through 100 points.

    Equal to OpenCV's `polylines` of thickness 2, except for single pixels where a line crosses the edge of
    the canvas.
    """
    # Truncated to whole pixels, as published. Summed term by term, because the order of the sums in a matrix
    # product varies between machines, and truncation shows that on a straight line on whole coordinates.
    points = (_bernstein(100)[:, :, None] * control).sum(axis=1).astype(np.int64)
    for start, (dx, dy) in zip(points[:-1], np.diff(points, axis=0), strict=True):
        x, y = (start + _line_pixels(int(dx), int(dy))).T
        inside = (x >= 0) & (x < canvas.shape[1]) & (y >= 0) & (y < canvas.shape[0])
        canvas[y[inside], x[inside]] = 0


def _border(pixels: bytes, stride: int, start: Point) -> np.ndarray:
    """Walk counter-clockwise around the area whose top left pixel is `start`."""
    # Step numbers in Suzuki and Abe: 3.1 looks clockwise from the left for the last pixel of the walk, 3.3
    # looks counter-clockwise for the next one. On bytes, since numpy is slow for single pixels.
    steps = [int(dx + dy * stride) for dx, dy in _DIRECTIONS]
    home = start[0] + start[1] * stride
    first = next((d for d in (3, 2, 1, 0, 7, 6, 5) if pixels[home + steps[d]]), None)
    if first is None:
        return np.array([start])
    walked, here, direction = [], home, first
    while True:
        turns = (turn % 8 for turn in range(direction + 1, direction + 9))
        direction = next(d for d in turns if pixels[here + steps[d]])
        walked.append(direction)
        # Back at the start is not enough: a thin area is walked through its start twice (step 3.5).
        if here == home + steps[first] and here + steps[direction] == home:
            offsets = np.cumsum(_DIRECTIONS[walked], axis=0)  # the last one is (0, 0): the walk is closed
            return start + np.roll(offsets, 1, axis=0)
        here += steps[direction]
        direction += 4


def _cut(border: np.ndarray, count: int) -> list[np.ndarray]:
    corners = _corners(border)
    points = corners if len(corners) >= count else border
    size = max(len(points) // count, 1)
    return [points[i : i + size] for i in range(0, len(points), size)]


def _corners(border: np.ndarray) -> np.ndarray:
    """The points of `border` at which its direction changes."""
    if len(border) == 1:
        return border
    arriving, leaving = border - np.roll(border, 1, axis=0), np.roll(border, -1, axis=0) - border
    return border[(arriving != leaving).any(axis=1)]


def _length(border: np.ndarray) -> float:
    return float(np.hypot(*(border - np.roll(border, 1, axis=0)).T).sum())


def _bernstein(count: int) -> np.ndarray:
    """Weights `[count,4]` of the control points at `count` evenly spaced parameters from 0 to 1."""
    # Python's powers, as published: NumPy's may differ in the last bit, which shows where points are cut to
    # whole pixels.
    return np.array([
        ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
        for t in np.linspace(0, 1, count).tolist()
    ])


@lru_cache(maxsize=4096)
def _line_pixels(dx: int, dy: int) -> np.ndarray:
    """Pixels `[N,2]` of a line two pixels wide from (0, 0) to (dx, dy)."""
    # A curve of 100 points has few kinds of such short lines. A round cap of this width is a plus.
    plus = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    pixels = {(x + cx, y + cy) for cx, cy in ((0, 0), (dx, dy)) for x, y in plus}
    if dx or dy:
        unit = _ONE / math.sqrt(dx * dx + dy * dy)
        wx, wy = round(dy * unit), round(-dx * unit)
        ex, ey = dx * _ONE, dy * _ONE
        pixels |= _quad_pixels([(wx, wy), (-wx, -wy), (ex - wx, ey - wy), (ex + wx, ey + wy)])
    return np.array(sorted(pixels))


def _quad_pixels(corners: list[Point]) -> set[Point]:
    """Pixels of a filled convex quad with its outline; corners in 16.16 fixed point."""
    rows: dict[int, list[int]] = {}
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        for x, y in _outline(start, end) + _fill_limits(start, end):
            rows.setdefault(y, []).append(x)
    return {(x, y) for y, row in rows.items() for x in range(min(row), max(row) + 1)}


def _outline(start: Point, end: Point) -> list[Point]:
    """One pixel per column (or row, if steeper) from `start` to `end`, and the pixel of the end itself."""
    steep = abs(end[0] - start[0]) <= abs(end[1] - start[1])
    start, end = (start[::-1], end[::-1]) if steep else (start, end)
    if end < start:
        start, end = end, start
    length = end[0] - start[0]
    slope = _truncated_division((end[1] - start[1]) * _ONE, length | 1)  # OpenCV's guard against zero
    line = [(_pixel(start[0]) + i, _pixel(start[1] + i * slope)) for i in range((length >> 16) + 1)]
    line.append((_pixel(end[0]), _pixel(end[1])))
    return [(x, y) for y, x in line] if steep else line


def _fill_limits(start: Point, end: Point) -> list[Point]:
    """Where the scan line fill ends on this side: one pixel per row, except the lowest."""
    # The slope is rounded, unlike that of the outline: OpenCV's fill and outline do not agree to the pixel,
    # which is why both are needed.
    start, end = sorted((start, end), key=lambda point: point[1])
    top, height = _pixel(start[1]), _pixel(end[1]) - _pixel(start[1])
    slope = _truncated_division((end[0] - start[0]) * 2 + height, 2 * height) if height else 0
    return [(_pixel(start[0] + i * slope), top + i) for i in range(height)]


def _pixel(fixed: int) -> int:
    return (fixed + _HALF) >> 16


def _truncated_division(numerator: int, denominator: int) -> int:
    # C rounds toward zero, Python's // down.
    return int(math.copysign(abs(numerator) // denominator, numerator))
