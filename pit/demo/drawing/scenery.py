"""Painters of the scenes: for each one what is above, then its ground.

They leave the middle free, and nothing has an outline: what has one is a creature or a thing.
"""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .canvas import WHITE, Canvas, Color, bezier, smooth, tube

Dot = tuple[float, float, float, float]  # x, y, radius x, radius y


def dots(canvas: Canvas, color: Color, places: Iterable[Dot]) -> None:
    for x, y, radius_x, radius_y in places:
        canvas.dot(x, y, radius_x, color, radius_y)


def land(canvas: Canvas, color: Color, *heights: float) -> None:
    """Ground up to the lower edge; its upper edge runs through these heights, evenly spaced."""
    x = np.linspace(0, 100, len(heights))
    # Beyond the picture, the curve is level.
    points = [(-20, heights[0]), *zip(x, heights, strict=True), (120, heights[-1]), (120, 130), (-20, 130)]
    canvas.shape(smooth(points), color)


def paint_sky(canvas: Canvas) -> None:
    for x, y in ((14, 20), (84, 14), (88, 60), (10, 66)):
        dots(canvas, WHITE, [(x, y, 9, 4), (x + 5, y - 3, 6, 5), (x - 4, y - 2, 5, 4)])


def paint_night_sky(canvas: Canvas) -> None:
    # The second disk, in the color of the sky, cuts a crescent out of the moon.
    canvas.dot(84, 16, 8, (255, 244, 200))
    canvas.dot(88, 13, 7, (44, 42, 92))
    stars = ((10, 12), (24, 30), (40, 8), (62, 14), (8, 50), (94, 44), (90, 74), (14, 80))
    dots(canvas, (255, 250, 220), [(x, y, 1.2, 1.2) for x, y in stars])


def paint_night(canvas: Canvas) -> None:
    canvas.dot(50, 108, 80, (40, 34, 70), 20)


def paint_meadow(canvas: Canvas) -> None:
    canvas.dot(50, 130, 110, (134, 204, 104), 54)
    canvas.dot(10, 122, 60, (112, 188, 96), 40)
    dots(canvas, WHITE, [(x, y, 1.8, 1.8) for x, y in ((10, 90), (24, 96), (80, 92), (92, 86))])


def paint_lava(canvas: Canvas) -> None:
    canvas.dot(50, 116, 90, (70, 26, 40), 28)
    dots(canvas, (255, 180, 60), [(x, y, 8, 1.8) for x, y in ((12, 92), (86, 94), (30, 97))])


def paint_snow_sky(canvas: Canvas) -> None:
    flakes = (
        (7, 9), (21, 22), (36, 6), (52, 15), (66, 5), (79, 20), (93, 10), (5, 38), (14, 52), (95, 36),
        (88, 50),
    )
    dots(canvas, WHITE, [(x, y, 1.3, 1.3) for x, y in flakes])


def paint_snow(canvas: Canvas) -> None:
    land(canvas, (204, 210, 234), 66, 74, 80, 81, 78, 72, 64)
    for x, y, grow in ((7, 84, 1), (94, 83, 0.9), (20, 82, 0.55), (83, 81, 0.5)):
        paint_fir(canvas, x, y, grow)
    land(canvas, (248, 250, 255), 82, 84, 84, 82, 83, 85, 83)
    land(canvas, (228, 234, 248), 97, 95, 97, 99, 98, 95, 96)


def paint_fir(canvas: Canvas, x: float, y: float, grow: float) -> None:
    with canvas.placed(x, y, grow=grow):
        canvas.shape([(-2, -8), (2, -8), (2, 2), (-2, 2)], (112, 92, 104))
        for top, base, half in ((-20, -5, 11), (-30, -15, 9), (-38, -24, 7)):
            canvas.shape([(0, top), (half, base), (-half, base)], (92, 128, 140))
            canvas.shape([(0, top - 1), (half * 0.52, top + 7), (0, top + 5), (-half * 0.52, top + 7)], WHITE)


def paint_desert_sky(canvas: Canvas) -> None:
    canvas.dot(90, 10, 12, (255, 246, 214))


def paint_desert(canvas: Canvas) -> None:
    land(canvas, (246, 206, 138), 74, 68, 70, 78, 80, 72, 66)
    land(canvas, (236, 182, 104), 76, 80, 84, 83, 79, 76, 78)
    for x, grow, way in ((8, 1, 1), (93, 0.8, -1)):
        paint_cactus(canvas, x, 88, grow, way)
    land(canvas, (222, 160, 86), 88, 87, 85, 86, 90, 89, 86)
    for x, y in ((16, 93), (80, 92), (42, 97)):
        canvas.stroke(bezier((x - 8, y), (x - 3, y - 2), (x + 2, y + 2), (x + 8, y)), (206, 142, 74), 0.9)


def paint_cactus(canvas: Canvas, x: float, y: float, grow: float, way: int) -> None:
    green, pale = (120, 150, 84), (150, 178, 108)
    with canvas.placed(x, y, grow=grow, mirrored=way < 0):
        canvas.stroke([(0, 0), (0, -34)], green, 7)
        canvas.stroke([(0, -12), (7.5, -13), (7.5, -24)], green, 4.4)
        canvas.stroke([(0, -17), (-6.5, -18), (-6.5, -27)], green, 4)
        for left in (-1.4, 1.4):
            canvas.stroke([(left, -2), (left, -33)], pale, 0.8)


def paint_beach_sky(canvas: Canvas) -> None:
    dots(canvas, (248, 254, 255), [(70, 12, 9, 3), (76, 10, 6, 4), (30, 22, 8, 2.6), (25, 20.5, 5, 3.4)])
    canvas.shape([(-5, 46), (105, 46), (105, 101), (-5, 101)], (42, 150, 196))
    waves = ((14, 52, 7), (88, 56, 8), (40, 50, 5), (66, 62, 6), (10, 66, 8), (92, 70, 7), (34, 70, 6))
    for x, y, half in waves:
        canvas.stroke(bezier((x - half, y), (x, y - 2), (x + half, y)), (120, 200, 222), 1)


def paint_beach(canvas: Canvas) -> None:
    land(canvas, (240, 252, 252), 80, 79, 77, 78, 80, 79, 77)
    land(canvas, (246, 224, 164), 83, 82, 80, 81, 83, 82, 80)
    pebbles = ((12, 90, 1.6, 0.8), (26, 97, 2, 0.9), (78, 96, 1.8, 0.8), (90, 89, 1.6, 0.8))
    dots(canvas, (228, 200, 136), pebbles)
    trunk = bezier((4, 92), (7, 70), (1, 54), (8, 38))
    canvas.shape(tube(trunk, np.linspace(2.8, 1.7, 10)), (166, 124, 84))
    for tip in ((-14, -2), (-9, 12), (-5, -16), (11, -13), (19, -2), (15, 13)):
        blade = [(8, 38), (8 + tip[0] * 0.5, 34 + tip[1] * 0.3), (8 + tip[0], 38 + tip[1])]
        canvas.shape(tube(bezier(*blade), [0.8, 1.8, 2.5, 2.9, 3, 2.9, 2.5, 2, 1.2, 0.2]), (76, 150, 92))


def paint_forest_sky(canvas: Canvas) -> None:
    for x, half in ((24, 3), (77, 3.4), (38, 2), (64, 2.2)):
        stand(canvas, (96, 136, 86), x, half, half * 1.3)
    for x, half in ((5, 6), (95, 6.6)):
        stand(canvas, (92, 66, 52), x, half, half * 1.5)
        for shift in (-0.4, 0.35):
            canvas.stroke([(x + shift * half, 24), (x + shift * half * 1.2, 74)], (76, 54, 46), 0.9)
    leaves = ((-2, 4, 18), (16, -2, 15), (32, -5, 13), (50, -8, 13), (68, -5, 13), (85, -2, 15), (102, 4, 18))
    dots(canvas, (42, 88, 62), [(x, y, size, size * 0.8) for x, y, size in leaves])
    dots(canvas, (58, 112, 70), [(x + 2, y - 4, size * 0.8, size * 0.6) for x, y, size in leaves])


def stand(canvas: Canvas, color: Color, x: float, top: float, bottom: float) -> None:
    """A straight trunk from edge to edge of the picture, with these half widths."""
    canvas.shape([(x - top, -1), (x + top, -1), (x + bottom, 101), (x - bottom, 101)], color)


def paint_forest(canvas: Canvas) -> None:
    land(canvas, (70, 112, 60), 82, 85, 86, 87, 86, 85, 82)
    land(canvas, (88, 78, 52), 93, 91, 89, 89, 90, 91, 93)
    for x in (3, 12, 21, 79, 88, 97):
        for lean in (-3.4, 0, 3.4):
            canvas.shape([(x - 1.1, 92), (x + lean, 83 + abs(lean) * 0.6), (x + 1.1, 92)], (54, 98, 56))
    dots(canvas, (112, 98, 62), [(14, 96, 3, 0.9), (84, 97, 3, 0.9), (62, 93, 2.4, 0.8), (34, 94, 2.4, 0.8)])


def paint_cave_sky(canvas: Canvas) -> None:
    far, near = (84, 72, 68), (38, 34, 38)
    for x, length, half in ((20, 27, 7), (35, 16, 6), (50, 10, 6), (64, 18, 6), (80, 30, 7)):
        canvas.shape([(x - half, -2), (x + half, -2), (x + 0.6, length), (x - 0.6, length)], far)
    hanging = (
        (4, 46, 8), (13, 22, 6), (27, 13, 7), (43, 8, 7), (57, 8, 7), (72, 14, 7), (88, 24, 6), (97, 44, 8),
    )
    for x, length, half in hanging:
        canvas.shape([(x - half, -2), (x + half, -2), (x + 0.6, length), (x - 0.6, length)], near)


def paint_cave(canvas: Canvas) -> None:
    land(canvas, (92, 80, 76), 76, 82, 85, 86, 85, 82, 76)
    for x, top, half in ((4, 58, 8), (15, 74, 6), (86, 72, 6), (97, 56, 8)):
        canvas.shape([(x - 0.8, top), (x + 0.8, top), (x + half, 96), (x - half, 96)], (66, 57, 57))
    land(canvas, (66, 57, 57), 86, 88, 90, 89, 90, 88, 86)
    dots(canvas, (86, 75, 72), [(18, 95, 6, 1.2), (82, 94, 6, 1.2), (50, 98, 9, 1.2)])


def paint_sea_sky(canvas: Canvas) -> None:
    for x, half in ((14, 5), (40, 7), (70, 5), (92, 6)):
        ray = [(x - half, -2), (x + half, -2), (x + half - 16, 101), (x - half * 2 - 18, 101)]
        canvas.shape(ray, (44, 146, 176))
    bubbles = ((6, 60, 1.6), (9, 52, 1.1), (5, 43, 2), (94, 50, 1.8), (90, 41, 1.2), (95, 30, 2))
    for x, y, radius in bubbles:
        canvas.dot(x, y, radius, (170, 224, 232))
        canvas.dot(x, y, radius * 0.62, (60, 150, 178))


def paint_sea(canvas: Canvas) -> None:
    land(canvas, (22, 84, 116), 74, 78, 83, 84, 82, 77, 72)
    for x, height, color in ((5, 40, (34, 132, 108)), (13, 26, (46, 152, 118)), (96, 44, (34, 132, 108)),
                             (88, 24, (46, 152, 118))):
        paint_weed(canvas, x, height, color)
    land(canvas, (150, 164, 138), 87, 88, 87, 86, 87, 88, 87)
    dots(canvas, (128, 144, 126), [(16, 93, 5, 1), (80, 95, 6, 1), (46, 98, 6, 1)])


def paint_weed(canvas: Canvas, x: float, height: float, color: Color) -> None:
    """A waving blade that grows out of the ground."""
    t = np.linspace(0, 1, 18)
    spine = np.stack([x + 2.6 * np.sin(t * 9), 92 - height * t], 1)
    canvas.shape(tube(spine, np.linspace(2.6, 0.5, 18)), color)


def paint_swamp_sky(canvas: Canvas) -> None:
    for x, way in ((6, 1), (94, -1)):
        wood, trunk = (96, 98, 68), bezier((x, 101), (x + way * 3, 60), (x - way * 2, 34), (x + way * 2, -4))
        canvas.shape(tube(trunk, np.linspace(4.6, 2.2, 10)), wood)
        for start, end in (((1, 46), (12, 34)), ((0.5, 30), (11, 18)), ((1, 58), (-9, 48))):
            canvas.stroke([(x + way * start[0], start[1]), (x + way * end[0], end[1])], wood, 1.8)
        for reach, top in ((5, 40), (9, 37), (6, 24), (9, 21)):  # moss
            canvas.stroke([(x + way * reach, top), (x + way * reach, top + 7)], (134, 148, 84), 1.6)
    dots(canvas, (164, 170, 116), [(20, 72, 26, 3), (78, 66, 28, 3), (60, 78, 30, 2.6)])


def paint_swamp(canvas: Canvas) -> None:
    land(canvas, (88, 104, 58), 80, 82, 83, 83, 82, 81, 79)
    land(canvas, (62, 82, 66), 85, 86, 87, 87, 86, 86, 85)
    dots(canvas, (82, 104, 82), [(30, 92, 12, 0.8), (70, 97, 14, 0.8), (52, 90, 9, 0.7)])
    for x, y, size in ((13, 95, 6), (90, 91, 5.4), (80, 98, 5)):
        canvas.dot(x, y, size, (104, 138, 62), size * 0.3)
        canvas.shape([(x, y), (x + size, y - size * 0.22), (x + size * 1.1, y + size * 0.1)], (62, 82, 66))
    for x, top in ((3, 60), (8, 68), (13, 73), (97, 62), (92, 70)):
        canvas.stroke([(x, 92), (x, top)], (84, 106, 54), 1.1)
        canvas.stroke([(x, top + 3), (x, top + 9)], (104, 76, 50), 2.6)


def paint_candy_sky(canvas: Canvas) -> None:
    for x, y in ((12, 18), (86, 12)):
        dots(canvas, (255, 244, 250), [(x, y, 10, 4.4), (x + 5, y - 3.4, 6, 5), (x - 4, y - 2.4, 5, 4.4)])


def paint_candy(canvas: Canvas) -> None:
    for x, y, half, height, color in ((4, 90, 34, 22, (196, 170, 240)), (98, 90, 38, 26, (160, 226, 214))):
        canvas.dot(x, y, half, color, height)
        for share in (0.42, 0.76):  # icing across the hill, up to its sides
            reach, middle = half * np.sqrt(1 - share**2) * 0.97, y - height * share
            canvas.stroke(bezier((x - reach, middle), (x, middle + 5), (x + reach, middle)), WHITE, 2)
    paint_cane(canvas, 13, 1)
    paint_cane(canvas, 88, -1)
    land(canvas, (255, 206, 150), 82, 81, 83, 84, 83, 81, 82)
    icing = [(x, 87 + (3.4 if i % 2 else 0)) for i, x in enumerate(range(-6, 112, 6))]
    canvas.shape(smooth([*icing, (120, 130), (-20, 130)]), (255, 150, 190))
    for i, (x, y) in enumerate(((8, 95), (20, 98), (31, 94), (69, 97), (80, 94), (92, 97))):
        color = ((255, 244, 160), (160, 226, 214), WHITE)[i % 3]
        canvas.stroke([(x, y), (x + 2.4, y + (-1 if i % 2 else 1))], color, 1.3)


def paint_cane(canvas: Canvas, x: float, way: int) -> None:
    """A striped cane whose hook points to the edge of the picture."""
    with canvas.placed(x, 88, turn=6 * way, mirrored=way < 0):
        shaft = [(0, y) for y in range(4, -27, -1)]
        hook = bezier((0, -27), (0, -39), (-10, -39), (-10, -29), count=34)[1:]
        spine = np.concatenate([shaft, hook])
        canvas.stroke(spine, WHITE, 4.4)
        for i in range(3, len(spine) - 3, 5):
            along = spine[i + 1] - spine[i - 1]
            along = along / np.linalg.norm(along)
            across = np.array((-along[1], along[0]))
            corners = ((-2.2, -1.7), (-2.2, 0.1), (2.2, 1.7), (2.2, -0.1))
            stripe = [spine[i] + across * side + along * ahead for side, ahead in corners]
            canvas.shape(stripe, (240, 110, 140))
