"""The shapes of the things: polygons with a role instead of a color, from back to front.

They are worked out once, when this module is loaded. A thing is then ready as soon as its polygons are
filled: Pillow's own thick lines with round joints would take most of the time.
"""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .canvas import Points, bezier, ellipse, smooth, tube

Piece = tuple[np.ndarray, str]  # a polygon `[N, 2]` and the role of its color

LINE = 1.5  # the width of outlines


def offset(points: Points, by: float) -> np.ndarray:
    """A simple polygon enlarged by `by` on all sides, or reduced where it is negative, `[M, 2]`.

    Corners that open get rounded, as those of Pillow's lines are.
    """
    here = np.asarray(points, float)
    along = np.roll(here, -1, 0) - here
    x, y = here.T
    outward = np.sign((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    after = np.stack([along[:, 1], -along[:, 0]], 1) * outward / np.linalg.norm(along, axis=1, keepdims=True)
    before = np.roll(after, 1, 0)
    cos = (before * after).sum(1)
    turn = (before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) * outward
    arc = np.linspace(0, 1, 7)[:, None]
    fan = before[:, None] * (1 - arc) + after[:, None] * arc
    fan /= np.linalg.norm(fan, axis=2, keepdims=True)
    # At all other corners the two neighboring sides meet.
    opens = (turn * by > 0) & (cos < 0.95)
    miter = (before + after) / (1 + cos)[:, None]
    fan[~opens] = miter[~opens, None]
    kept = opens[:, None] | (np.arange(7) == 0)
    return (here[:, None] + by * fan)[kept]


def inked(points: Points, role: str, width: float = LINE) -> list[Piece]:
    """A filled polygon with a line around it."""
    return [(offset(points, width / 2), "line"), (offset(points, -width / 2), role)]


def line(spine: Points, width: float, role: str = "line") -> Piece:
    """A thick line with round ends."""
    half, spine = width / 2, np.asarray(spine, float)
    ends = [
        end + half * np.stack([np.cos(angle), np.sin(angle)], 1)
        for end, direction in ((spine[-1], spine[-1] - spine[-2]), (spine[0], spine[0] - spine[1]))
        for angle in [np.arctan2(direction[1], direction[0]) + np.linspace(np.pi / 2, -np.pi / 2, 9)]
    ]
    body, count = tube(spine, np.full(len(spine), half)), len(spine)
    return np.concatenate([body[:count], ends[0], body[count:], ends[1]]), role


def tubing(spine: Points, width: float, role: str = "color", ink: float = LINE) -> list[Piece]:
    """A thick line with a line around it; `width` is that of both."""
    return [line(spine, width), line(spine, width - 2 * ink, role)]


def ring(outer: np.ndarray, inner: np.ndarray, role: str) -> Piece:
    """What lies between two closed curves."""
    return np.concatenate([outer, outer[:1], inner, inner[:1]]), role


def around(points: Points, width: float = LINE) -> Piece:
    """Only the line around a polygon, for what reaches up to it."""
    return ring(offset(points, width / 2), offset(points, -width / 2), "line")


def inked_ring(
    x: float, y: float, radius_x: float, radius_y: float, width: float, ink: float = LINE
) -> list[Piece]:
    """A ring with lines around it; the radii are those of its middle."""
    def between(half: float, role: str) -> Piece:
        outer, inner = (ellipse(x, y, radius_x + way, radius_y + way, 40) for way in (half, -half))
        return ring(outer, inner, role)

    return [between(width / 2, "line"), between(width / 2 - ink, "color")]


def joined(*parts: Iterable[Piece]) -> list[Piece]:
    """Parts that are one: all lines lie below all fills, so that none crosses where the parts meet."""
    pieces = [piece for part in parts for piece in part]
    return sorted(pieces, key=lambda piece: piece[1] != "line")


def mirrored(points: Points) -> np.ndarray:
    """The closed polygon whose right half, from top to bottom, is given."""
    right = np.asarray(points, float)
    left = right[::-1] * [-1, 1]
    return np.concatenate([right, left[left[:, 0] < 0]])


def ball() -> list[Piece]:
    x, y, radius, pole = 0, -11, 10.3, np.array((-2.6, -15.2))
    pieces: list[Piece] = [(ellipse(x, y, radius, count=44), "color")]
    for start in (-1.15, 0.95, 3.05):
        angle = np.linspace(start, start + 0.7, 8)
        rim = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)
        sides = [bend(pole, rim[0], 0.22), bend(pole, rim[-1], 0.22)[::-1]]
        pieces += inked(np.concatenate([sides[0], rim[1:-1], sides[1][:-1]]), "white", 1)
    pieces += inked(ellipse(*pole, 1.8, count=20), "color", 1)
    return [*pieces, around(ellipse(x, y, radius, count=48))]


def bend(start: Points, end: Points, amount: float) -> np.ndarray:
    """A curve between two points that bends to one side."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    way = end - start
    return bezier(start, (start + end) / 2 + amount * np.array((-way[1], way[0])), end, count=9)


def lantern() -> list[Piece]:
    handle = bezier((-5.8, -17), (-7, -25.4), (7, -25.4), (5.8, -17), count=24)
    glass = [(-6, -13), (6, -13), (6, -6.6), (-6, -6.6)]
    roof = mirrored([(3, -20.6), (3.8, -19), (9.2, -15), (9.2, -12)])
    base = mirrored([(7.8, -7.2), (9.4, -0.8)])
    glow = smooth([(0, -11.8), (1.5, -9.3), (1.1, -8), (-1.1, -8), (-1.5, -9.3)], 5)
    return [
        line(handle, 1.6), *inked(glass, "cream"), *inked(glow, "gold", 0.9),
        *inked(roof, "color"), *inked(base, "color"),
        line([(-6.2, -14.9), (-3.3, -17.1)], 1.1, "light"), line([(-6.2, -3.7), (-3.1, -3.7)], 1.1, "light"),
    ]


def mushroom() -> list[Piece]:
    stem = smooth(mirrored([(3.2, -9.5), (3.2, -5), (4.8, -1.9), (2.6, -0.8)]), 8)
    cap = smooth(mirrored([(0, -22.8), (5.8, -21.1), (10.2, -15.2), (9.8, -9.4), (5, -7.5), (0, -7)]), 10)
    spots = [(0.6, -17, 2.7, 2.4), (-6.4, -13.4, 1.8, 2), (6.9, -12.6, 1.8, 2), (0.4, -10.6, 1.7, 1.4)]
    return [*inked(stem, "cream"), *inked(cap, "color")] + [(ellipse(*spot, 20), "white") for spot in spots]


def key() -> list[Piece]:
    bow = inked_ring(0, -17.6, 4.8, 4, 5, 1.1)
    shaft = inked([(-1.9, -14.4), (1.9, -14.4), (1.9, -0.55), (-1.9, -0.55)], "color", 1.1)
    teeth = [
        inked([(0, top), (end, top), (end, top + 2.4), (0, top + 2.4)], "color", 1.1)
        for top, end in ((-6.9, 5.4), (-2.95, 6.8))
    ]
    collar = inked([(-3.3, -13.9), (3.3, -13.9), (3.3, -12.1), (-3.3, -12.1)], "color", 1.1)
    shine = bezier((-5.2, -18.4), (-4.5, -21.1), (-1.6, -21.6), count=8)
    return [*joined(bow, shaft, *teeth), *collar, line(shine, 1, "light")]


def book() -> list[Piece]:
    cover = [(-7.4, -22.8), (7.6, -22.8), (8.4, -22), (8.4, -5.6), (-7.4, -5.6)]
    pages = [(-7.4, -5.6), (7.2, -5.6), (7.2, -2), (-7.4, -2)]
    # The spine is rounded at its lower end, where it meets the cover at the back.
    bound = [(-7, -22.8), (-4.6, -22.8), (-4.6, -6), (-5.6, -5.2), (-6, -3.8), (-5.4, -2.4), (8.4, -2.4),
             (8.4, -0.8), (-6.4, -0.8), (-8.2, -2), (-8.8, -4), (-8.8, -21)]
    plate = [(-1.8, -19), (5.6, -19), (5.6, -14), (-1.8, -14)]
    return [
        *inked(pages, "white"), line([(-4.6, -3.9), (6.4, -3.9)], 0.7, "stone"), *inked(cover, "color"),
        *inked(bound, "color"), *inked(plate, "white", 0.9),
        line([(-0.1, -17.4), (3.9, -17.4)], 0.9), line([(-0.1, -15.6), (2.4, -15.6)], 0.9),
        line([(-6.7, -20.8), (-6.7, -14)], 1.1, "light"),
    ]


def balloon() -> list[Piece]:
    string = bezier((0, -8), (-3.4, -6), (3.4, -5), (0, -2.6), count=14)
    skin = smooth(mirrored([(0, -24), (4.7, -22.6), (6.9, -17.8), (4.7, -12.2), (0, -9.4)]), 10)
    knot = [(0, -10.4), (1.8, -7.6), (-1.8, -7.6)]
    weight = [(-2.2, -3.4), (2.2, -3.4), (3.4, -0.6), (-3.4, -0.6)]
    shine = bezier((-4.2, -16.4), (-4.4, -19.6), (-1.8, -21.4), count=8)
    return [
        line(string, 0.8), *inked(knot, "color", 1.2), *inked(skin, "color"), line(shine, 1.5, "pale"),
        *inked(weight, "lead", 1.2),
    ]


def prism(half: float, height: float, lean: float, x: float) -> list[Piece]:
    """One crystal: a shaft with a pointed end, whose left side is in the light."""
    angle = np.radians(lean)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    top, edge = height * 0.7, -half * 0.5

    def at(*points: tuple[float, float]) -> np.ndarray:
        return np.array(points) @ turned + [x, -1]

    body = at((-half * 0.8, 0), (-half, -top), (0, -height), (half, -top), (half * 0.8, 0))
    left = at((-half * 0.8, 0), (-half, -top), (0, -height), (edge, -top * 0.93), (edge, 0))
    return [
        (body, "color"), (left, "light"), line(at((edge, 0), (edge, -top * 0.93), (0, -height)), 0.7),
        line(at((edge, -top * 0.93), (half, -top)), 0.7), around(body),
    ]


def crystal() -> list[Piece]:
    return [*prism(3.9, 12.8, -27, -3.2), *prism(4.1, 14, 25, 3), *prism(5.6, 21.2, 0, 0)]


def umbrella() -> list[Piece]:
    low, peak, seams = -9.2, (0, -21.4), np.array((-10.7, -5.5, 0, 5.5, 10.7))
    hook = [(0, -4.6), (0, -3.6), *bezier((0, -3.6), (0, 0.4), (5, 0.4), (4.9, -2.8), count=12)[1:]]
    hem = [
        bezier((left, low), ((left + right) / 2, low - 3), (right, low), count=7)[:-1]
        for left, right in zip(seams, seams[1:], strict=False)
    ]
    dome = bezier((10.7, low), (10, -25.8), (-10, -25.8), (-10.7, low), count=28)
    ribs = [bezier(peak, (x * 0.95, -19), (x, low), count=10) for x in seams[1:-1]]
    return [
        *tubing([(0, -14), (0, -4)], 2.4, "stone", 0.7), *tubing(hook, 3, "color", 0.9),
        line([(0, -22.8), (0, -20)], 1.6), *inked(np.concatenate([*hem, dome[:-1]]), "color"),
        *[line(rib, 1) for rib in ribs],
        line(bezier((-8.4, -12.6), (-7.4, -16.2), (-4.8, -18.2), count=8), 1.3, "light"),
    ]


def cup() -> list[Piece]:
    handle = inked_ring(6, -9.6, 3.8, 4.1, 4.2, 1.2)
    body = [(-9.6, -16.4), (6.4, -16.4), *bezier((6, -7), (5.6, -0.8), (0.6, -0.8), count=9)]
    body += [tuple(point) for point in bezier((-3.8, -0.8), (-8.8, -0.8), (-9.2, -7), count=9)]
    rim = ellipse(-1.6, -16.6, 8, 2.5, 32)
    return [
        *handle, *inked(body, "color"), *inked(rim, "dark"),
        line(bezier((-7, -11.8), (-6.9, -7.4), (-5.7, -5), count=8), 1.5, "light"),
    ]


def star() -> list[Piece]:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 10.9, 5.7)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle) - 10], 1)
    return [*inked(points, "color"), line([(-1.5, -14.6), (-2.6, -12), (-5, -11.6)], 1.4, "pale")]


# The order is that of the labels.
KINDS: dict[str, list[Piece]] = {
    make.__name__: make()
    for make in (ball, lantern, mushroom, key, book, balloon, crystal, umbrella, cup, star)
}
