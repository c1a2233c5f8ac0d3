"""Painters of the body and of what grows out of it: tail, wings, arms and legs."""
from __future__ import annotations

import numpy as np

from .anatomy import Figure
from .canvas import Color, bezier, darker, ellipse, lighter, outline_of, smooth, tube
from .pose import BACK, FRONT, LIMBS, SIDE, Limb

# Points in units around the place where a part is attached to the body, for the right side.
FISH_TAIL = (
    (0, 0), (9, 2), (16, -1), (26, -17), (33, -13), (27, -1), (33, 9), (25, 12), (14, 6), (3, 7)
)
BOLT_TAIL = (
    (0, 5), (13, 0), (9, -7), (22, -10), (18, -16), (32, -25), (28, -12), (31, -8), (21, -2), (25, 3), (4, 11)
)
FLAME = ((17, -3), (14, -11), (19, -16), (20, -27), (27, -19), (31, -15), (33, -7), (27, 0))
BAT_WING = (  # curves, each of which starts where the one before it ends
    ((0, 2), (5, -14), (13, -24)), ((13, -24), (25, -22), (30, -6)), ((30, -6), (30, 0), (28, 9)),
    ((28, 9), (23, 1), (18, 9)), ((18, 9), (12, 3), (8, 11)),
)
FEATHER_WING = (
    (0, 7), (3, -6), (14, -20), (30, -26), (27.5, -18), (31.5, -14), (27, -8), (29.5, -3), (22.5, 2), (22, 8),
    (10, 11),
)
FEATHER_EDGES = (
    ((8, -2), (16, -9), (25, -14)), ((8, 3), (16, -2), (24, -5)), ((8, 8), (13, 5), (19, 4)),
)
LEAF_VEINS = (((9, -3), (9, -11)), ((15, -10), (16, -18)), ((10, -4), (19, -4)), ((16, -11), (25, -12)))
DRAGONFLY_BLADES = (  # outline and vein, the lower one first
    (((1, 3), (12, 1), (24, 5), (30, 12), (23, 15), (11, 11)), ((8, 6), (24, 11))),
    (((1, 3), (8, -10), (20, -22), (29, -25), (29, -17), (20, -6), (9, 2)), ((8, -3), (25, -20))),
)
CLAW_LEG = (
    (-3.5, -5), (3.5, -5), (4, 5), (12, 12.5), (5.5, 11.5), (3, 14), (0, 11.5), (-3, 14), (-4.5, 11.5),
    (-9, 12.5), (-4, 5),
)
PINCER = ((10, 3), (4, -5), (5, -15), (12, -17), (11, -8), (16, -7), (19, -16), (23, -9), (20, 0))
SPOTS = (  # x and y in half widths and half heights of the body, radius in units
    (-0.78, 0.3, 4.4), (0.76, 0.42, 4.8), (-0.36, 0.78, 4.2), (0.8, -0.42, 3.6), (-0.72, -0.6, 3.6),
    (0.3, 0.74, 3.4),
)


def paint_tail(figure: Figure, limb: Limb) -> None:
    canvas, style, color = figure.canvas, figure.styles["tail"], figure.colors["tail"]
    # Any larger, and the longest tails would be cut off at the edge of the picture.
    line, grow = outline_of(color), 0.98 + 0.04 * figure.jitter["tail"]
    root_y = figure.bottom - (9 if figure.pose.view == BACK else 4)
    at = figure.placer(limb.side, figure.width * limb.apart, root_y, grow)
    if style == "spade":
        stem = bezier(*at((0, 3), (16, 9), (24, 4), (23, -8)))
        canvas.shape(tube(stem, np.linspace(2.8, 1.8, 10)), color, line)
        canvas.shape(at((23, -25), (33, -9), (24.5, -11), (14, -8)), color, line)
    elif style == "fluffy":
        plume = at((0, 3), (9, 8), (21, 7), (31, -3), (31, -18), (22, -17), (10, -9))
        canvas.shape(smooth(plume), color, line)
        tip = at((30, -3), (30, -17), (23, -16), (22, -10), (25, -6))
        canvas.shape(smooth(tip), lighter(color, 0.6), None)
    elif style == "fish":
        canvas.shape(smooth(at(*FISH_TAIL)), color, line)
        for start, end in (((20, -4), (28, -12)), ((20, 3), (28, 8))):
            canvas.stroke(at(start, end), line, 1.6)
    elif style == "bolt":
        canvas.shape(at(*BOLT_TAIL), color, line)
    elif style == "curl":
        angle, radius = np.linspace(0, 2.1 * np.pi, 30), np.linspace(11.5, 2.4, 30)
        spiral = zip(19 + radius * np.cos(angle + 2.2), -5 - radius * np.sin(angle + 2.2), strict=True)
        # Without its first points, which lie above the root, the spiral continues the line from the body.
        spine = at((0, 4), *list(spiral)[4:])
        # A stroke has no outline, so a wider one in the color of the line goes below it.
        canvas.stroke(spine, line, 7.4)
        canvas.stroke(spine, color, 4)
    elif style == "flame":
        stem = bezier(*at((0, 3), (13, 9), (24, 6), (24, -2)))
        canvas.shape(tube(stem, np.linspace(3, 2.4, 10)), color, line)
        canvas.shape(smooth(at(*FLAME)), color, line)
        glow = at((21, -4), (21, -10), (25, -15), (28.5, -8), (25, -2))
        canvas.shape(smooth(glow), lighter(color, 0.65), None)


def paint_wing(figure: Figure, limb: Limb) -> None:
    root = figure.x + limb.side * limb.apart * figure.width, figure.y - 7
    with figure.posed("wings", limb, *root):
        paint_still_wing(figure, limb)


def paint_still_wing(figure: Figure, limb: Limb) -> None:
    canvas, style, color = figure.canvas, figure.styles["wings"], figure.colors["wings"]
    # Any larger, and the widest wings would be cut off at the edge of the picture.
    line, grow = outline_of(color), 0.97 + 0.04 * figure.jitter["wings"]
    at = figure.placer(limb.side, figure.width * limb.apart, figure.y - 7, grow)
    if style == "bat":
        edge = [bezier(*at(*controls)) for controls in BAT_WING]
        canvas.shape(np.concatenate([*edge, at((0, 9))]), color, line)
        for end in ((27, 7), (18, 7)):
            canvas.stroke(at((13, -22), end), line, 1.6)
    elif style == "feather":
        canvas.shape(smooth(at(*FEATHER_WING)), color, line)
        for controls in FEATHER_EDGES:
            canvas.stroke(bezier(*at(*controls), count=6), line, 1.6)
    elif style == "butterfly":
        lower = at((2, 8), (12, 4), (24, 6), (26, 15), (17, 20), (6, 15))
        canvas.shape(smooth(lower), darker(color, 0.2), line)
        upper = at((0, 6), (5, -12), (17, -26), (30, -22), (31, -8), (21, 4), (8, 9))
        canvas.shape(smooth(upper), color, line)
        canvas.shape(ellipse(*at((20, -13))[0], 5.4 * grow, count=16), lighter(color, 0.7), None)
        canvas.shape(ellipse(*at((19, 12))[0], 3 * grow, count=12), lighter(color, 0.7), None)
    elif style == "leaf":
        upper, lower = bezier(*at((0, 6), (2, -20), (30, -27))), bezier(*at((30, -27), (33, 8), (4, 11)))
        canvas.shape(np.concatenate([upper, lower[1:]]), color, line)
        canvas.stroke(bezier(*at((2, 6), (10, -8), (26, -22)), count=8), line, 1.6)
        for start, end in LEAF_VEINS:
            canvas.stroke(at(start, end), line, 1.4)
    elif style == "dragonfly":
        for blade, vein in DRAGONFLY_BLADES:
            canvas.shape(smooth(at(*blade)), color, line)
            canvas.stroke(at(*vein), lighter(color, 0.7), 1.8)


def paint_legs(figure: Figure) -> None:
    painter = {"tentacle": paint_tentacles, "spider": paint_spider_legs}.get(figure.styles["legs"], paint_leg)
    sides = figure.limbs["legs"] if painter is paint_leg else LIMBS[FRONT]["legs"]
    for limb in sides:
        root = figure.x + limb.side * limb.apart * figure.width, figure.bottom - 3
        with figure.posed("legs", limb, *root):
            painter(figure, limb)


def paint_tentacles(figure: Figure, limb: Limb) -> None:
    for offset in sorted((limb.side * 16, limb.side * 5.5)):
        paint_tentacle(figure, offset)


def paint_tentacle(figure: Figure, offset: float) -> None:
    x, bottom, color = figure.x, figure.bottom, figure.colors["legs"]
    root, out = x + offset * figure.width / 23, 1 if offset > 0 else -1
    knee, tip = x + offset * 1.25 + out * 2, x + offset * 1.3 + out * 6
    spine = bezier((root, bottom - 8), (root, bottom + 5), (knee, bottom + 9), (tip, bottom + 3))
    figure.canvas.shape(tube(spine, np.linspace(4.6, 1.9, 10)), color, outline_of(color))


def paint_spider_legs(figure: Figure, limb: Limb) -> None:
    canvas, color = figure.canvas, figure.colors["legs"]
    at = figure.placer(limb.side, figure.width * 0.4, figure.bottom - 4, 1 + 0.04 * figure.jitter["legs"])
    for knee, foot in (((13, -5), (20, 13)), ((3, 3), (6, 13))):
        for shade, width in ((outline_of(color), 6.4), (color, 3.4)):
            canvas.stroke(at((0, 0), knee, foot), shade, width)


def paint_leg(figure: Figure, limb: Limb) -> None:
    canvas, style, color = figure.canvas, figure.styles["legs"], figure.colors["legs"]
    line, grow = outline_of(color), 1 + 0.05 * figure.jitter["legs"]
    at = figure.placer(limb.side, figure.width * limb.apart, figure.bottom - 3, grow)
    if style == "stub":
        canvas.shape(smooth(at((-5, -5), (5, -5), (6.5, 7), (5, 12), (-5, 12), (-6, 7))), color, line)
    elif style == "paw":
        canvas.shape(smooth(at((-6, -4), (6, -4), (11, 5), (9, 12.5), (-6, 12.5), (-8, 5))), color, line)
        for toe in (-2, 3.5):
            canvas.stroke(at((toe, 7.5), (toe, 12)), line, 1.6)
    elif style == "claw":
        canvas.shape(at(*CLAW_LEG), color, line)


def paint_body(figure: Figure) -> None:
    canvas, color = figure.canvas, figure.colors["body"]
    canvas.shape(figure.outline, color, outline_of(color))
    # The pattern ends inside the line around the body.
    inset = (figure.outline - [figure.x, figure.y]) * 0.94 + [figure.x, figure.y]
    canvas.clipped(inset, lambda: paint_pattern(figure, color))


def paint_pattern(figure: Figure, color: Color) -> None:
    canvas, x, y, width, height = figure.canvas, figure.x, figure.y, figure.width, figure.height
    pale, deep = lighter(color, 0.62), darker(color, 0.5)
    pattern = figure.styles["pattern"]
    # Every pattern leaves the face free (eyes at -0.3, mouth at 0.2 half heights): nothing may hide it.
    if pattern == "belly" and figure.pose.view != BACK:
        belly = x + (0.5 * width if figure.pose.view == SIDE else 0)
        canvas.shape(ellipse(belly, y + height * 0.66, width * 0.72, height * 0.5), pale, None)
    elif pattern == "spots":
        for spot_x, spot_y, radius in SPOTS:
            canvas.dot(x + spot_x * width, y + spot_y * height, radius, pale)
    elif pattern == "stripes":
        for row in (-0.84, 0.36, 0.66, 0.95):
            middle = y + row * height
            for side in (-1, 1):
                edge, tip = x + side * width * 1.25, x + side * width * 0.3
                canvas.shape([(edge, middle - 3.2), (tip, middle + 1), (edge, middle + 3.4)], deep, None)
    elif pattern == "scales":
        for row, row_y in enumerate((0.46, 0.68, 0.9, 1.1)):
            for column in range(-3, 4):
                scale_x = x + (column + (row % 2) * 0.5) * 8
                canvas.shape(ellipse(scale_x, y + row_y * height, 4.6, 4.8, 14), pale, deep, 1.5)
    canvas.dot(x - width * 0.48, figure.top + height * 0.22, width * 0.17, lighter(color, 0.5), height * 0.08)


def paint_arm(figure: Figure, limb: Limb) -> None:
    # From the side, lower than the mouth.
    root_y = figure.y + figure.height * (0.5 if figure.pose.view == SIDE else 0.26)
    with figure.posed("arms", limb, figure.x + limb.side * limb.apart * figure.width, root_y):
        paint_still_arm(figure, limb, root_y)


def paint_still_arm(figure: Figure, limb: Limb, root_y: float) -> None:
    canvas, style, color = figure.canvas, figure.styles["arms"], figure.colors["arms"]
    line, grow = outline_of(color), 1.04 + 0.06 * figure.jitter["arms"]
    at = figure.placer(limb.side, figure.width * limb.apart, root_y, grow)
    if style == "stub":
        canvas.shape(smooth(at((-4, -4), (4, -6), (12, -1), (12, 6), (6, 8), (-2, 6))), color, line)
    elif style == "paw":
        arm = at((-5, -5), (2, -6), (10, 2), (13, 12), (7, 17), (0, 13), (-4, 5))
        canvas.shape(smooth(arm), color, line)
        canvas.shape(ellipse(*at((6.5, 10.5))[0], 3.3 * grow, count=12), lighter(color, 0.6), None)
    elif style == "claw":
        upper = bezier(*at((-4, 3), (5, 6), (8, -3)), count=6)
        lower = bezier(*at((15, -1), (12, 10), (-3, 10)), count=7)
        fingers = at((4, -10), (9, -8), (11.5, -14), (13.5, -8), (19, -10), (15, -2))
        canvas.shape(np.concatenate([upper, fingers, lower]), color, line)
    elif style == "pincer":
        canvas.shape(tube(bezier(*at((-4, 2), (6, 7), (11, 0)), count=6), np.full(6, 3.2)), color, line)
        canvas.shape(smooth(at(*PINCER)), color, line)
    elif style == "flipper":
        flipper = at((-4, -4), (4, -6), (15, 0), (23, 9), (16, 12), (4, 8), (-3, 5))
        canvas.shape(smooth(flipper), color, line)
