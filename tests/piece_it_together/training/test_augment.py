"""How parts are varied before they are encoded, as published, and that a seed decides it all."""

import random

import numpy as np
import pytest
from PIL import Image

from pit.piece_it_together.parts import place_part
from pit.piece_it_together.training.augment import Augmentation, augment_part

NEVER = Augmentation(crop_probability=0, rotation_probability=0)


def raw(image: Image.Image) -> bytes:
    return image.tobytes()


def dark_box(image: Image.Image) -> tuple[int, int]:
    """Width and height of what is dark."""
    rows, columns = np.nonzero(np.asarray(image.convert("L")) < 128)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def test_without_crop_and_turn_a_part_is_only_placed():
    part = Image.new("RGB", (60, 30), "navy")
    for seed in range(20):
        placed = augment_part(part, (200, 100), NEVER, random.Random(seed))
        width, height = dark_box(placed)
        assert placed.size == (200, 100) and 160 <= width <= 190 and abs(height - width / 2) <= 1


def test_draws_come_in_the_documented_order():
    part = Image.new("RGB", (50, 40), "navy")
    always = Augmentation(crop_probability=1, rotation_probability=1)
    rng = random.Random(5)
    rng.random()
    width, height = int(50 * rng.uniform(0.8, 1)), int(40 * rng.uniform(0.8, 1))
    x, y = rng.randint(0, 50 - width), rng.randint(0, 40 - height)
    rng.random()
    angle = rng.uniform(-30, 30)
    turned = part.crop((x, y, x + width, y + height)).rotate(
        angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white"
    )
    expected = place_part(turned, canvas=(90, 120), scale=rng.uniform(0.8, 0.95), rng=rng)
    assert raw(augment_part(part, (90, 120), always, random.Random(5))) == raw(expected)


def test_crops_and_turns_come_with_their_probability():
    part, settings = Image.new("L", (100, 100)), Augmentation(scale_least=0.9, scale_most=0.9)
    shapes = []
    for seed in range(300):
        placed = augment_part(part, (100, 100), settings, random.Random(seed))
        shown = placed.convert("L").point(lambda value: 255 - value)
        width, height = dark_box(placed)
        corner = shown.crop(shown.getbbox()).getpixel((0, 0))
        shapes.append("turned" if corner < 50 else "cropped" if width != height else "whole")
    assert 0.12 < shapes.count("turned") / 300 < 0.28
    assert 0.10 < shapes.count("cropped") / 300 < 0.24
    assert shapes.count("whole") > 150


def test_the_corners_of_a_turned_part_are_white():
    settings = Augmentation(crop_probability=0, rotation_probability=1, rotation_degrees=30)
    placed = augment_part(Image.new("RGB", (80, 80), "black"), (100, 100), settings, random.Random(1))
    values, counts = np.unique(np.asarray(placed.convert("L")), return_counts=True)
    assert counts[values == 255][0] > 2000 and counts[values == 0][0] > 2000
    assert counts[(values > 20) & (values < 235)].sum() < 1000


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (7, 5)])
@pytest.mark.parametrize("part", [(1, 1), (1, 400), (400, 1), (64, 64)])
def test_any_part_fits_on_any_canvas(part, size):
    always = Augmentation(crop_probability=1, rotation_probability=1)
    for seed in range(5):
        assert augment_part(Image.new("RGB", part), size, always, random.Random(seed)).size == size


def test_sketches_replace_the_part_with_their_probability_and_draw_nothing_otherwise():
    part = Image.new("RGB", (100, 100), "red")
    sketched = augment_part(part, (128, 128), Augmentation(0, 0.8, 0, sketch_probability=1), random.Random(0))
    pixels = np.asarray(sketched)
    assert np.ptp(pixels, axis=2).max() == 0 and 0.001 < (pixels < 128).mean() < 0.2
    assert raw(augment_part(part, (128, 128), NEVER, random.Random(0))) != raw(sketched)


def test_without_sketches_nothing_is_drawn_for_them():
    rng, by_hand = random.Random(3), random.Random(3)
    augment_part(Image.new("RGB", (30, 30)), (64, 64), NEVER, rng)
    by_hand.random(), by_hand.random()
    place_part(Image.new("RGB", (30, 30)), canvas=64, scale=by_hand.uniform(0.8, 0.95), rng=by_hand)
    assert rng.random() == by_hand.random()


def test_transparency_is_put_on_white_before_turning():
    part = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    placed = augment_part(part, (50, 50), Augmentation(rotation_probability=1), random.Random(0))
    assert placed.getcolors() == [(2500, (255, 255, 255))]
