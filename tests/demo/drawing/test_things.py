"""Drawn things: deterministic, standing on the ground, and each unlike all others in kind and color."""

import random
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from pit.demo.drawing.canvas import Canvas, ellipse
from pit.demo.drawing.creature import COLOR_NAMES
from pit.demo.drawing.thing_shapes import KINDS, around, inked, offset
from pit.demo.drawing.things import (
    THING_JITTERS,
    THINGS,
    Thing,
    draw_thing,
    paint_shadow,
    paint_thing,
    pieces_of,
    sample_thing,
    thing_shape,
    thing_size,
    thing_words,
    tints,
)
from pit.demo.models.words import WORDS

PLAIN = dict.fromkeys(THING_JITTERS, 0.0)
EXTREMES = [PLAIN | {"size": size, "tilt": tilt} for size, tilt in product((-1, 0, 1), repeat=2)]


def distance(first, second) -> float:
    return np.abs(np.asarray(first).astype(int) - np.asarray(second)).mean()


def shoelace(points) -> float:
    x, y = np.asarray(points).T
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def test_the_same_seed_draws_the_same_picture():
    first, second = (sample_thing(random.Random(5)) for _ in range(2))
    assert first == second
    assert draw_thing(first).tobytes() == draw_thing(second).tobytes()
    assert first != sample_thing(random.Random(6))


def test_every_kind_and_color_is_drawn_sometimes():
    rng = random.Random(0)
    things = [sample_thing(rng) for _ in range(1200)]
    assert {(thing.kind, thing.color) for thing in things} == set(product(THINGS, COLOR_NAMES))
    for name in THING_JITTERS:
        values = [thing.jitter[name] for thing in things]
        assert min(values) < -0.9 and max(values) > 0.9


def test_a_kind_that_is_given_changes_nothing_else():
    free, given = sample_thing(random.Random(3)), sample_thing(random.Random(3), kind="cup")
    assert given == replace(free, kind="cup")
    assert sample_thing(random.Random(3), color="pink") == replace(free, color="pink")


@pytest.mark.parametrize("kind", THINGS)
def test_a_thing_stands_on_the_ground_and_keeps_its_size(kind):
    for jitter in EXTREMES:
        thing = Thing(kind, "red", jitter)
        points = np.concatenate([points for points, _ in pieces_of(thing)])
        (left, top), (right, bottom) = points.min(0), points.max(0)
        assert bottom == pytest.approx(0) and left == pytest.approx(-right)
        assert (right - left, -top) == pytest.approx(thing_size(thing))
        assert right - left <= 24.5 and 18 < -top <= 26.2


@pytest.mark.parametrize("kind", THINGS)
def test_its_foot_is_drawn_where_it_stands(kind):
    for jitter in EXTREMES:
        thing, canvas = Thing(kind, "blue", jitter), Canvas(200)
        with canvas.placed(50, 94):
            paint_thing(canvas, thing)
        left, top, right, bottom = canvas.finish().getbbox()
        width, height = thing_size(thing)
        assert bottom == pytest.approx(188, abs=1.5) and bottom - top == pytest.approx(2 * height, abs=2)
        assert (left + right) / 2 == pytest.approx(100, abs=1.5) and right - left <= 2 * width + 2


@pytest.mark.parametrize("pixels", [64, 128, 256])
@pytest.mark.parametrize("kind", THINGS)
def test_alone_it_fills_its_share_of_the_picture_and_lies_in_the_middle(kind, pixels):
    for share, jitter in ((0.9, PLAIN), (0.6, EXTREMES[0]), (0.9, EXTREMES[-1])):
        shape = thing_shape(Thing(kind, "green", jitter), pixels, share=share)
        assert (shape.mode, shape.size) == ("RGBA", (pixels, pixels))
        left, top, right, bottom = shape.getbbox()
        assert max(right - left, bottom - top) == pytest.approx(share * pixels, abs=2.5)
        assert (left + right) / 2 == pytest.approx(pixels / 2, abs=1.5)
        assert (top + bottom) / 2 == pytest.approx(pixels / 2, abs=1.5)


def test_every_kind_and_color_is_unlike_all_others():
    pictures = {
        (kind, color): np.asarray(draw_thing(Thing(kind, color, PLAIN), 64)).astype(int)
        for kind, color in product(THINGS, COLOR_NAMES)
    }
    for (first, picture), (second, other) in combinations(pictures.items(), 2):
        # Red and orange, the nearest two, differ by 5 or more everywhere, and kinds by far more.
        assert distance(picture, other) > (5 if first[0] == second[0] else 18), (first, second)


@pytest.mark.parametrize(("kind", "color"), list(product(THINGS, COLOR_NAMES)))
def test_its_color_fills_most_of_it(kind, color):
    thing = sample_thing(random.Random(f"{kind} {color}"), kind, color)
    pixels = np.asarray(thing_shape(thing, 128)).astype(int)
    solid = pixels[pixels[..., 3] > 128, :3]
    assert (np.abs(solid - tints(thing)["color"]).max(1) < 24).mean() > 0.36


def test_a_picture_alone_is_white_around_the_thing():
    for kind in THINGS:
        thing = sample_thing(random.Random(kind), kind)
        picture, shape = np.asarray(draw_thing(thing)), np.asarray(thing_shape(thing))
        assert picture.shape == (256, 256, 3)
        assert (picture[shape[..., 3] == 0] == 255).all()
        assert (picture[shape[..., 3] == 255] == shape[shape[..., 3] == 255][:, :3]).all()


def test_the_hole_of_a_key_and_of_a_handle_is_empty():
    for kind in ("key", "cup", "lantern"):
        opaque = np.asarray(thing_shape(Thing(kind, "red", PLAIN), 128))[..., 3] > 0
        outside = np.zeros_like(opaque)
        outside[0, 0] = True
        while True:
            grown = outside.copy()
            grown[1:] |= outside[:-1]
            grown[:-1] |= outside[1:]
            grown[:, 1:] |= outside[:, :-1]
            grown[:, :-1] |= outside[:, 1:]
            grown &= ~opaque
            if (grown == outside).all():
                break
            outside = grown
        assert (~opaque & ~outside).sum() > 20, kind


@pytest.mark.parametrize("jitter", THING_JITTERS)
def test_every_jitter_changes_the_picture(jitter):
    for kind in THINGS:
        canvases = [Canvas(256) for _ in range(2)]
        for canvas, value in zip(canvases, (-1, 1), strict=True):
            with canvas.placed(50, 94):
                paint_thing(canvas, Thing(kind, "orange", PLAIN | {jitter: value}))
        assert distance(*(canvas.finish() for canvas in canvases)) > 0.05


def test_a_label_marks_all_of_a_thing_and_the_shadow_is_soft():
    canvas = Canvas(100, labeled=True)
    with canvas.placed(50, 94):
        paint_shadow(canvas, 10)
        canvas.label = 7
        paint_thing(canvas, Thing("book", "red", PLAIN))
    opaque = np.asarray(canvas.finish())[..., 3]
    marked = canvas.finish_map() == 7
    assert (opaque[marked] > 100).all() and not (opaque[~marked] > 180).any()
    assert (opaque == 60).sum() > 20


def test_its_words_are_known():
    for kind, color in product(THINGS, COLOR_NAMES):
        assert thing_words(Thing(kind, color, PLAIN)) == f"{color} {kind}"
        assert {kind, color} <= set(WORDS)


def test_an_enlarged_polygon_is_as_much_larger_as_its_sides_tell():
    for points in ([(0, 0), (10, 0), (10, 10), (0, 10)], [(0, 0), (0, 10), (10, 10), (10, 0)]):
        assert shoelace(offset(points, -1)) == pytest.approx(64)
        # Rounded corners: the square, its four sides, and a circle.
        assert shoelace(offset(points, 1)) == pytest.approx(100 + 40 + np.pi, abs=0.1)
    circle = ellipse(3, 4, 10, count=60)
    assert np.linalg.norm(offset(circle, 2) - (3, 4), axis=1) == pytest.approx(12, abs=0.05)


def test_a_line_around_has_its_width_and_nothing_inside():
    square = [(40, 40), (60, 40), (60, 60), (40, 60)]
    canvas = Canvas(100)
    canvas.shape(around(square, 4)[0], (0, 0, 0))
    opaque = np.asarray(canvas.finish())[..., 3]
    assert opaque[50, 38:42].all() and not opaque[43:57, 43:57].any() and not opaque[50, :37].any()
    (line, _), (fill, role) = inked(square, "color", 4)
    assert role == "color" and np.ptp(line, axis=0) == pytest.approx((24, 24))
    assert np.ptp(fill, axis=0) == pytest.approx((16, 16))


def test_every_role_has_a_color():
    roles = {role for pieces in KINDS.values() for _, role in pieces}
    assert roles <= set(tints(Thing("ball", "red", PLAIN)))
    assert len(THINGS) == 10


@pytest.mark.parametrize(("call", "message"), [
    (lambda: Thing("teapot", "red", PLAIN), "one of the things ball, .* got 'teapot'"),
    (lambda: Thing("cup", "black", PLAIN), "one of the colors red, .* got 'black'"),
    (lambda: Thing("cup", "red", {}), "the jitters size, tilt, hue, shade, got none"),
    (lambda: Thing("cup", "red", {"wings": 0} | PLAIN), "jitters size, .* got hue, shade, size, tilt, wings"),
    (lambda: Thing("cup", "red", PLAIN | {"tilt": 1.5}), "a tilt between -1 and 1, got 1.5"),
    (lambda: Thing("cup", "red", PLAIN | {"size": float("nan")}), "a size between -1 and 1, got nan"),
    (lambda: sample_thing(random.Random(0), kind=""), "one of the things ball, .* got ''"),
    (lambda: sample_thing(random.Random(0), color="teal"), "one of the colors red, .* got 'teal'"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
