"""Sketches equal the published ones to the pixel, and what the published code crashes on is drawn."""

import random
import re

import numpy as np
import pytest
from PIL import Image

from pit.piece_it_together.sketch import (
    bezier_sketch,
    draw_cubic,
    fit_cubic,
    foreground,
    outer_borders,
    share_curves,
    sketch_segments,
)
from tests.golden import number_in

PLAIN = r"sketch\.result_\d+curves"


@pytest.fixture
def published(golden) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in golden.below("pit_image_ops", "sketch.").items()}


@pytest.fixture
def picture(published) -> Image.Image:
    return Image.fromarray(published["input"])


def curves_of(key: str) -> int:
    return int(re.search(r"_(\d+)curves", key)[1])


def rectangles(*boxes: tuple[int, int, int, int], size: int = 200) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    for box in boxes:
        image.paste("black", box)
    return image


def sketch(image: Image.Image, curves: int, **options) -> np.ndarray:
    return np.asarray(bezier_sketch(image, curves=curves, rng=random.Random(0), **options))


@pytest.mark.golden_keys("pit_image_ops", PLAIN)
def test_segments_equal_the_published_ones(published, picture, key):
    segments = sketch_segments(picture, curves_of(key))
    assert len(segments) == len(published["control_points"])
    for i, segment in enumerate(segments):
        assert np.array_equal(segment, published[f"segment{i}"])


def test_control_points_equal_the_published_ones(published):
    for i, control in enumerate(published["control_points"]):
        np.testing.assert_allclose(fit_cubic(published[f"segment{i}"]), control, rtol=0, atol=1e-9)


@pytest.mark.golden_keys("pit_image_ops", PLAIN)
def test_published_control_points_draw_the_published_pixels(published, key):
    expected = published[key.removeprefix("sketch.")][..., 0]
    canvas = np.full_like(expected, 255)
    for control in published["control_points"]:
        draw_cubic(canvas, control)
    assert np.array_equal(canvas, expected)


@pytest.mark.golden_keys("pit_image_ops", r"sketch\.result_.+")
def test_sketches_equal_the_published_ones(published, picture, key):
    drawn = bezier_sketch(
        picture, curves=curves_of(key), drop_probability=number_in(key, "drop", 0.0),
        rng=random.Random(int(number_in(key, "seed", 0))),
    )
    assert drawn.mode == "RGB"
    assert np.array_equal(np.asarray(drawn), published[key.removeprefix("sketch.")])


def test_borders_go_down_first_and_the_lowest_area_comes_first():
    mask = np.zeros((6, 7), bool)
    mask[1:3, 1:3] = True
    mask[4, 5] = True
    lone, square = outer_borders(mask)
    assert lone.tolist() == [[5, 4]]
    assert square.tolist() == [[1, 1], [1, 2], [2, 2], [2, 1]]


def test_borders_skip_holes_and_what_lies_in_them():
    mask = np.ones((9, 9), bool)
    mask[1:8, 1:8] = False
    mask[4, 4] = True
    (border,) = outer_borders(mask)
    assert len(border) == 32 and set(map(tuple, border)) == {(x, y) for x, y in border if {x, y} & {0, 8}}


def test_thin_lines_are_walked_there_and_back():
    mask = np.eye(4, dtype=bool)
    (border,) = outer_borders(mask)
    assert border.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3], [2, 2], [1, 1]]


def test_foreground_ignores_near_white_and_shrinks_by_eight_pixels():
    image = Image.new("RGB", (60, 60), (255, 255, 251))  # grey 254.54, which rounds to white
    image.paste((255, 255, 250), (20, 20, 60, 60))
    inside = foreground(image)
    assert inside.sum() == 32 * 32 and inside[28:, 28:].all()


def test_curves_are_shared_by_length():
    assert share_curves([278, 401], 10) == [4, 6]
    assert share_curves([1000, 1, 1], 4) == [2, 1, 1]
    assert share_curves([1, 1, 1], 10) == [4, 3, 3]
    assert share_curves([0.0, 0.0], 5) == [3, 2]
    assert share_curves([], 5) == []


def test_cubic_recovers_the_curve_that_made_the_points():
    t = np.linspace(0, 1, 30)[:, None]
    control = np.array([[3.0, 5.0], [40.0, -10.0], [-20.0, 60.0], [30.0, 30.0]])
    points = (1 - t) ** 3 * control[0] + 3 * t * (1 - t) ** 2 * control[1]
    points += 3 * t**2 * (1 - t) * control[2] + t**3 * control[3]
    np.testing.assert_allclose(fit_cubic(points), control, atol=1e-3)


@pytest.mark.parametrize("points", [[[4, 7]], [[4, 7], [7, 13]]])
def test_cubic_of_few_points_is_straight(points):
    first, last = np.array(points[0]), np.array(points[-1])
    expected = [first + (last - first) * third / 3 for third in range(4)]
    np.testing.assert_allclose(fit_cubic(np.array(points)), expected, atol=1e-12)


def test_lines_are_cut_off_at_the_edge():
    canvas = np.full((20, 20), 255, np.uint8)
    draw_cubic(canvas, np.array([[-30.0, 10.0], [-10.0, 10.0], [30.0, 10.0], [50.0, 10.0]]))
    assert (canvas[9:12] == 0).all() and (canvas[:8] == 255).all() and (canvas[13:] == 255).all()


@pytest.mark.parametrize("image", [Image.new("RGB", (64, 48), "white"), Image.new("RGBA", (64, 48))])
def test_blank_pictures_give_white_sketches(image):
    assert sketch(image, 10).shape == (image.height, image.width, 3)
    assert (sketch(image, 10) == 255).all()


def test_too_many_contours_keep_the_longest():
    small, wide, tall = (10, 10, 40, 40), (10, 60, 190, 90), (10, 110, 40, 190)
    pieces = sketch_segments(rectangles(small, wide, tall), 2)
    assert [piece[0].tolist() for piece in pieces] == [[18, 118], [18, 68]]


def test_contours_with_fewer_corners_than_curves_are_drawn_whole():
    drawn = sketch(rectangles((40, 40, 160, 160)), 10)[..., 0] == 0
    assert drawn[48, 60:140].mean() > 0.7 and drawn[60:140, 48].mean() > 0.7
    assert not drawn[70:130, 70:130].any()


def test_tiny_pictures_are_dots():
    assert (sketch(Image.new("RGB", (1, 1)), 15) == 0).all()


def test_every_curve_can_be_dropped():
    assert (sketch(rectangles((40, 40, 160, 160)), 10, drop_probability=1.0) == 255).all()


def test_no_curves_are_refused():
    with pytest.raises(ValueError, match="at least one curve for a sketch, got 0"):
        sketch(rectangles((40, 40, 160, 160)), 0)
