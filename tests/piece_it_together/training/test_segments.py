"""Parts found by color: on products, on creatures, and where there is nothing to find."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from pit.demo.drawing.creature import Creature, creature_from_seed
from pit.demo.drawing.draw import PART_LABELS, draw_creature, draw_label_map, draw_shape
from pit.piece_it_together.training.part_rules import SMALLEST_PART
from pit.piece_it_together.training.segments import foreground, segment

SIDE = 300


def disc(x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


BALLS = {  # color -> where
    (200, 60, 120): disc(80, 90, 35),
    (60, 160, 90): disc(220, 90, 40),
    (70, 120, 200): disc(150, 190, 70),
}


def product(ground: float = 230.0, slope: float = 50.0) -> Image.Image:
    """Three shaded balls on a gray gradient, with noise and a soft shadow."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    shade = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(shade).ellipse((70, 245, 230, 280), fill=60)
    shadow = np.asarray(shade.filter(ImageFilter.GaussianBlur(8))).astype(float)
    pixels = np.repeat((ground - slope * rows / SIDE - shadow * 0.5)[..., None], 3, axis=2)
    for color, mask in BALLS.items():
        top = np.nonzero(mask)[0].min()
        pixels[mask] = (np.array(color) * (1.15 - 0.5 * (rows - top)[..., None] / 140))[mask]
    return Image.fromarray((pixels + rng.normal(0, 2, pixels.shape)).clip(0, 255).astype(np.uint8))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum())


def test_the_parts_of_a_product_on_a_gradient_are_found_whole():
    masks = segment(product())
    assert len(masks) == len(BALLS) and masks.dtype == bool and masks.shape[1:] == (SIDE, SIDE)
    for ball in BALLS.values():
        assert max(overlap(mask, ball) for mask in masks) > 0.93


def test_soft_shadows_belong_to_the_ground():
    everything = np.any(list(BALLS.values()), axis=0)
    assert overlap(foreground(product()), everything) > 0.95


def test_a_pale_object_is_not_taken_for_its_own_shadow():
    pixels = np.full((SIDE, SIDE, 3), 250, np.uint8)
    ball = disc(150, 150, 80)
    pixels[ball] = 200
    assert overlap(foreground(Image.fromarray(pixels)), ball) > 0.95


def test_what_is_cut_off_at_the_border_does_not_count_as_ground():
    pixels = np.full((SIDE, SIDE, 3), 240, np.uint8)
    pixels[120:, 100:200] = (200, 30, 30)
    box = np.zeros((SIDE, SIDE), bool)
    box[120:, 100:200] = True
    assert overlap(foreground(Image.fromarray(pixels)), box) > 0.97


def test_small_holes_are_filled_and_large_ones_are_not():
    ring = disc(150, 150, 100) & ~disc(150, 150, 60)
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[ring] = (30, 90, 160)
    assert not foreground(Image.fromarray(pixels))[150, 150]
    pixels[disc(150, 150, 60) & ~disc(150, 150, 15)] = (30, 90, 160)
    assert foreground(Image.fromarray(pixels))[150, 150]


@pytest.mark.parametrize("seed", range(4))
def test_creatures_fall_into_a_few_compact_regions(seed):
    creature = creature_from_seed(seed)
    masks = segment(draw_creature(creature, pixels=192))
    shape = np.asarray(draw_shape(creature, 192))[..., 3] > 128
    assert 4 <= len(masks) <= 20
    assert masks.sum(axis=0).max() == 1
    assert (masks.any(axis=0) & shape).sum() > 0.9 * (masks.any(axis=0) | shape).sum() - 0.05 * shape.size
    for mask in masks:
        pieces = np.bincount(ndimage.label(mask)[0].ravel())[1:]
        assert pieces.max() > 0.9 * mask.sum()
        assert mask.mean() > 0.01


def visible_parts(creature: Creature, pixels: int) -> list[np.ndarray]:
    """The exact masks of what can be seen of each part, left and right apart, without what is tiny."""
    found, masks = draw_label_map(creature, pixels), []
    for part in creature.parts:
        areas, count = ndimage.label(found == PART_LABELS[part])
        masks += [areas == number for number in range(1, count + 1)]
    return [mask for mask in masks if mask.mean() > SMALLEST_PART]


def test_most_parts_of_creatures_are_found():
    fits = []
    for creature in map(creature_from_seed, range(10)):
        masks = segment(draw_creature(creature, 256))
        fits += [max(overlap(mask, part) for mask in masks) for part in visible_parts(creature, 256)]
    assert np.mean(fits) > 0.55 and np.mean(np.array(fits) > 0.5) > 0.6


@pytest.mark.parametrize("picture", [product(), draw_creature(creature_from_seed(0), 128)])
def test_the_same_picture_gives_the_same_masks(picture):
    assert np.array_equal(segment(picture), segment(picture.copy()))


def test_small_regions_join_others_if_asked_to():
    assert len(segment(product(), smallest=0.04)) == len(BALLS)  # of 0.043, 0.056 and 0.171
    plate = np.full((SIDE, SIDE, 3), 255, np.uint8)
    plate[disc(150, 150, 100)], plate[disc(150, 150, 30)] = (30, 60, 200), (220, 200, 40)
    assert [len(segment(Image.fromarray(plate), share)) for share in (0.015, 0.04)] == [2, 1]


def test_an_empty_picture_has_no_regions():
    assert segment(Image.new("RGB", (50, 30), "white")).shape == (0, 30, 50)
    assert segment(Image.new("L", (1, 1))).shape == (0, 1, 1)
    assert segment(Image.new("RGBA", (2, 700))).shape == (0, 700, 2)


def test_large_pictures_come_back_at_their_size():
    masks = segment(product().resize((1500, 1500)))
    assert masks.shape == (3, 1500, 1500) and masks.sum(axis=0).max() == 1
    ball = np.asarray(Image.fromarray(BALLS[70, 120, 200]).resize((1500, 1500)))
    assert max(overlap(mask, ball) for mask in masks) > 0.93


def test_a_busy_ground_is_refused():
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    busy = Image.fromarray(noise).resize((200, 200), Image.Resampling.NEAREST)
    with pytest.raises(ValueError, match="plain ground, got a border whose color is not even. Give masks"):
        segment(busy)
