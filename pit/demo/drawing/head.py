"""Painters of the head: ears, horns, eyes, mouth."""
from __future__ import annotations

import numpy as np

from .anatomy import Figure, Placer
from .canvas import INK, WHITE, Canvas, Color, bezier, blend, ellipse, lighter, outline_of, smooth, tube
from .pose import BACK, FRONT, SIDE, Limb

# Around the center of the right eye, in radii.
SLIT_EYE = ((-1.1, -0.5), (0, -0.7), (1.1, -1.15), (1, 0.4), (0, 0.95), (-1, 0.5))
SLIT_IRIS, EYELID = (255, 226, 96), (198, 178, 206)
BEAK, BEAK_LINE = (250, 176, 56), (120, 66, 30)
TONGUE = (226, 84, 100)


def paint_ear(figure: Figure, limb: Limb) -> None:
    canvas, style, color, view = figure.canvas, figure.styles["ears"], figure.colors["ears"], figure.pose.view
    line, inside = outline_of(color), blend(lighter(color, 0.5), (255, 190, 190), 0.4)
    if view == BACK:
        inside = color
    grow = 1.06 + 0.07 * figure.jitter["ears"]
    # Pears and ghosts are narrow at the top: farther out, ears would float beside the head.
    apart = min(limb.apart, 0.62) if figure.styles["body"] in ("pear", "ghost") else limb.apart
    at = figure.placer(limb.side, figure.width * apart, figure.top + figure.height * 0.26, grow)
    if style == "round":
        canvas.shape(ellipse(*at((2, -6))[0], 8.6 * grow), color, line)
        canvas.shape(ellipse(*at((2, -6))[0], 4.2 * grow, count=16), inside, None)
    elif style == "pointy":
        inner, outer = bezier(*at((-8, -2), (-2, -15), (9, -22))), bezier(*at((9, -22), (11, -6), (5, 5)))
        canvas.shape(np.concatenate([inner, outer[1:]]), color, line)
        canvas.shape(at((-3, -4), (6, -15), (5, 0)), inside, None)
    elif style == "bunny":
        canvas.shape(smooth(at((-8, -1), (-8, -18), (-1, -31), (6, -27), (5, -11), (1, 1))), color, line)
        canvas.shape(smooth(at((-4, -6), (-4, -18), (0, -26), (2.5, -20), (1, -6))), inside, None)
    elif style == "floppy":
        flap = at((-5, -4), (4, -9), (12, -1), (15, 12), (11, 20), (5, 16), (3, 6))
        canvas.shape(smooth(flap), color, line)
        canvas.shape(smooth(at((6, 1), (10, 5), (12, 13), (9, 15), (7, 8))), inside, None)
    elif style == "fin":
        upper = bezier(*at((1, -9), (9, -17), (18, -18)), count=6)
        middle = bezier(*at((18, -18), (12, -9), (19, -4)), count=5)
        lower = bezier(*at((19, -4), (12, 0), (15, 8)), count=5)
        canvas.shape(np.concatenate([at((-4, -4)), upper, middle[1:], lower[1:], at((1, 8))]), color, line)
        for start, end in (((3, -3), (13, -13)), ((4, 1), (14, -3))):
            canvas.stroke(at(start, end), line, 1.5)


def paint_horns(figure: Figure) -> None:
    canvas, style, color = figure.canvas, figure.styles["horns"], figure.colors["horns"]
    # From the side, the single ones stand over the forehead.
    x = figure.x + (0.25 * figure.width if figure.pose.view == SIDE else 0)
    line, grow, root = outline_of(color), 1.12 + 0.08 * figure.jitter["horns"], figure.top + 3.5
    if style == "sprout":
        canvas.stroke([(x, root + 1), (x, root - 9 * grow)], line, 3.2)
        for side in (-1, 1):
            at = figure.placer(side, side * (x - figure.x), root, grow)
            upper = bezier(*at((0, -7), (5, -21), (17, -18)))
            lower = bezier(*at((17, -18), (14, -5), (0, -7)))
            canvas.shape(np.concatenate([upper, lower[1:-1]]), color, line)
    elif style == "unicorn":
        half, tip = 5.6 * grow, (x, root - 25 * grow)
        canvas.shape([(x - half, root + 2), tip, (x + half, root + 2)], color, line)
        for rise in (4, 10, 16):  # rings, which narrow with the horn
            half, y = 4.4 * grow * (1 - rise / 26), root - rise * grow
            canvas.stroke([(x - half, y + 1), (x + half, y - 2)], line, 1.5)
    else:
        for limb in figure.limbs["horns"]:
            at = figure.placer(limb.side, figure.width * limb.apart, root, grow)
            paint_horn(canvas, style, at, color, line, grow)


def paint_horn(canvas: Canvas, style: str, at: Placer, color: Color, line: Color, grow: float) -> None:
    if style == "cone":
        inner, outer = bezier(*at((-4.5, 2), (-2, -9), (4, -18))), bezier(*at((4, -18), (7, -6), (5, 4)))
        canvas.shape(np.concatenate([inner, outer[1:]]), color, line)
        canvas.stroke(at((-1.5, -4), (4.5, -4)), line, 1.5)
    elif style == "ram":
        # A spiral around (6, -6): over the top, outward, down, and back toward the head.
        angle = np.linspace(-2.6, 2.0, 20)
        spine_x = 6 + np.cos(angle) * np.linspace(9, 5, 20)
        spine_y = -6 + np.sin(angle) * np.linspace(9, 6, 20)
        spine, center = np.array(at(*zip(spine_x, spine_y, strict=True))), np.array(at((6, -6))[0])
        canvas.shape(tube(spine, np.linspace(4.6, 1.2, 20) * grow), color, line)
        for point in spine[[5, 9, 13]]:  # ridges, along the radius of the spiral
            canvas.stroke([point + (point - center) * 0.26, point - (point - center) * 0.26], line, 1.4)
    elif style == "antlers":
        branches = (bezier(*at((0, 3), (1, -10), (10, -22))), at((2, -7), (-4, -16)), at((5, -12), (14, -11)))
        # All outlines before all fills; otherwise outlines would cross the fills where branches meet.
        for shade, width in ((line, 6.2), (color, 3.3)):
            for branch in branches:
                canvas.stroke(branch, shade, width)
    elif style == "antennae":
        canvas.stroke(bezier(*at((-2, 3), (-1, -12), (6, -16))), line, 2.4)
        canvas.shape(ellipse(*at((6, -18))[0], 5 * grow, count=18), color, line)


# Where eyes are: side, x and y from their usual place (x in the distance of two eyes), radius in units.
EYES = {
    FRONT: {
        "cyclops": ((1, 0, -1, 11.5),), "triple": ((-1, -1.16, 2, 5.6), (1, 1.16, 2, 5.6), (1, 0, -6.5, 5.8)),
        "two": ((-1, -1, 0, 7.6), (1, 1, 0, 7.6)),
    },
    SIDE: {
        "cyclops": ((1, 1.25, -1, 11),), "triple": ((1, 1.7, 2, 5.6), (1, 0.75, -5.5, 5.8)),
        "two": ((1, 1.15, 0, 7.6),),
    },
}


def paint_eyes(figure: Figure) -> None:
    grow, style = 1 + 0.06 * figure.jitter["eyes"], figure.styles["eyes"]
    y, apart = figure.y - figure.height * 0.3 + 0.6 * figure.jitter["face"], figure.width * 0.44
    places = EYES[figure.pose.view]
    # Larger than a drawing would need: in the encoder's 64 pixels a unit is two thirds of a pixel.
    for side, across, down, radius in places.get(style, places["two"]):
        shape = "round" if style in places else style
        paint_eye(figure.canvas, shape, figure.x + across * apart, y + down, radius * grow, side)


def paint_eye(canvas: Canvas, style: str, x: float, y: float, r: float, side: int) -> None:
    def at(*points):
        """Points around the eye, in radii; mirrored when side is -1."""
        return [(x + side * px * r, y + py * r) for px, py in points]

    if style == "slit":
        canvas.shape(smooth(at(*SLIT_EYE), 5), SLIT_IRIS, INK, 2)
        canvas.dot(x, y + r * 0.05, r * 0.26, INK, r * 0.75)
    elif style == "sleepy":
        canvas.shape(ellipse(x, y, r), WHITE, INK, 2)
        canvas.dot(x, y + r * 0.35, r * 0.48, INK)
        # The lid is the upper half of 28 points (y points down), closed by the first point of the circle.
        lid = np.concatenate([ellipse(x, y, r * 1.08)[14:], [(x + r * 1.08, y)]])
        canvas.shape(lid, EYELID, INK, 2)
    elif style == "sparkle":
        canvas.dot(x, y, r * 0.92, INK, r * 1.2)
        canvas.dot(x - r * 0.25, y - r * 0.45, r * 0.42, WHITE)
        canvas.dot(x + r * 0.32, y + r * 0.45, r * 0.26, WHITE)
        for rise in (0.75, 0.35):
            canvas.stroke(at((0.8, -rise), (1.35, -rise - 0.35)), INK, 1.6)
    else:
        canvas.shape(ellipse(x, y, r), WHITE, INK, 2)
        canvas.dot(x, y + r * 0.05, r * 0.56, INK)
        canvas.dot(x - r * 0.2, y - r * 0.22, r * 0.22, WHITE)


def paint_mouth(figure: Figure) -> None:
    if figure.pose.view == SIDE:
        # Beaks point to where the creature looks.
        turn = -62 if figure.styles["mouth"] == "beak" else 0
        x, y = figure.x + figure.width * (0.98 if turn else 0.52), figure.y + figure.height * 0.2
        with figure.canvas.placed(turn=turn, around=(x, y)):
            paint_mouth_at(figure, x, 0.72)
    else:
        paint_mouth_at(figure, figure.x, 1)


def paint_mouth_at(figure: Figure, x: float, wide: float) -> None:
    canvas, style = figure.canvas, figure.styles["mouth"]
    jitter = figure.jitter["mouth"]
    y, w = figure.y + figure.height * 0.2 + 0.5 * jitter, wide * (9 + 0.6 * jitter)

    def at(*points):
        """Points around the mouth: x in half widths, y in units."""
        return [(x + px * w, y + py) for px, py in points]

    if style == "smile":
        canvas.stroke(bezier(*at((-1, -1), (0, 9), (1, -1))), INK, 2.4)
    elif style == "fangs":
        for side in (-1, 1):
            canvas.shape(at((side * 0.9, 1), (side * 0.6, 8.5), (side * 0.22, 1.6)), WHITE, INK, 1.6)
        canvas.stroke(bezier(*at((-1.1, 0), (0, 2.6), (1.1, 0))), INK, 2.4)
    elif style == "open":
        lips = at((-0.8, -1.5), (0, -2.2), (0.8, -1.5), (0.6, 6.5), (0, 9), (-0.6, 6.5))
        canvas.shape(smooth(lips), INK, INK, 1.8)
        canvas.dot(x, y + 6, w * 0.46, TONGUE, 2.6)
    elif style == "zigzag":
        canvas.shape(at((-1.1, -2), (1.1, -2), (1, 7), (-1, 7)), INK, INK, 1.8)
        for left, right in ((-1, -0.5), (-0.5, 0), (0, 0.5), (0.5, 1)):
            canvas.shape(at((left, -2), (right, -2), ((left + right) / 2, 5.6)), WHITE, None)
    elif style == "beak":
        canvas.shape(at((-0.9, -1.5), (0, -5), (0.9, -1.5), (0, 9)), BEAK, BEAK_LINE, 2)
        canvas.stroke(bezier(*at((-0.75, -0.8), (0, 2.5), (0.75, -0.8)), count=6), BEAK_LINE, 1.5)
    elif style == "buck":
        for side in (-1, 1):
            canvas.stroke(bezier(*at((0, -0.5), (side * 0.5, 3.5), (side, -2))), INK, 2.2)
        teeth = [(x - 4, y + 1), (x + 4, y + 1), (x + 3.4, y + 8.5), (x - 3.4, y + 8.5)]
        canvas.shape(teeth, WHITE, INK, 1.7)
        canvas.stroke([(x, y + 1), (x, y + 8)], INK, 1.3)
