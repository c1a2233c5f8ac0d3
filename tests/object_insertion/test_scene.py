"""Which part of a scene is worked on, and that all else comes back unchanged."""
from __future__ import annotations

import pytest
import torch

from pit.object_insertion.scene import find_place, put_back, working_pictures, working_region


def scenes(height, width, count=1):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(height + width))


def mask(height, width, box):
    left, top, right, bottom = box
    region = torch.zeros(1, height, width)
    region[:, top:bottom, left:right] = 1
    return region


@pytest.mark.parametrize("height, width, padded", [
    (64, 72, (72, 64)), (63, 70, (72, 64)), (1, 9, (16, 8)), (63, 4097, (4104, 64)),
])
def test_a_scene_of_any_size_is_padded_and_comes_back(height, width, padded):
    scene = scenes(height, width)
    place = find_place(scene)
    assert place.padded == padded and place.size == (width, height)
    pictures = working_pictures(place)
    assert pictures.shape == (1, padded[1], padded[0], 3)
    assert torch.equal(pictures[0, -1, -1], scene[0, -1, -1])
    assert torch.equal(put_back(place, pictures), scene)


def test_a_large_scene_is_worked_on_at_the_working_size_or_as_it_is():
    scene = scenes(90, 160)
    place = find_place(scene, working_size=60)
    assert place.size == (80, 45) and working_pictures(place).shape == (1, 48, 80, 3)
    result = put_back(place, torch.full((1, 48, 80, 3), 0.25))
    torch.testing.assert_close(result, torch.full_like(scene, 0.25))
    assert find_place(scene, working_size=0).size == (160, 90)


def test_outside_of_the_region_every_bit_is_kept_and_inside_it_is_new():
    scene, region = scenes(101, 203), mask(101, 203, (50, 30, 71, 44))
    region[0, 30, 50:71] = 0.5
    place = find_place(scene, region, working_size=40)
    width, height = place.padded
    result = put_back(place, torch.ones(1, height, width, 3))
    assert torch.equal(result[region == 0], scene[region == 0])
    torch.testing.assert_close(result[region == 1], torch.ones_like(result[region == 1]))
    torch.testing.assert_close(result[region == 0.5], scene[region == 0.5].lerp(torch.tensor(1.0), 0.5))


@pytest.mark.parametrize("region, working_size, box, size", [
    ((50, 30, 60, 40), 64, (23, 3, 87, 67), (64, 64)),  # around a small region, the working size
    ((0, 0, 4, 4), 64, (0, 0, 64, 64), (64, 64)),  # at a corner, as much
    ((196, 96, 200, 100), 64, (136, 36, 200, 100), (64, 64)),
    ((10, 10, 110, 60), 64, (0, 0, 200, 100), (91, 45)),  # a large one, with its margin, is scaled down
    ((50, 30, 60, 40), 0, (0, 0, 200, 100), (200, 100)),
])
def test_the_surroundings_of_a_region_are_worked_on(region, working_size, box, size):
    place = find_place(scenes(100, 200), mask(100, 200, region), working_size)
    assert (place.box, place.size) == (box, size)


def test_cells_that_the_region_touches_may_change():
    place = find_place(scenes(24, 40), mask(24, 40, (15, 8, 17, 9)), working_size=0)
    assert working_region(place)[0, 0].tolist() == [[0] * 5, [0, 1, 1, 0, 0], [0] * 5]
    assert working_region(find_place(scenes(24, 40))) is None


def test_several_pictures_go_into_one_scene_and_one_into_each():
    one, two = find_place(scenes(16, 16)), find_place(scenes(16, 16, 2), mask(16, 16, (4, 4, 8, 8)), 0)
    pictures = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 16, 16, 3) / 4
    assert torch.equal(put_back(one, pictures), pictures)
    result = put_back(two, pictures)
    assert result[:, 5, 5, 0].tolist() == [0, 0.25, 0.5, 0.75]
    assert torch.equal(result[2, 0], two.scenes[0, 0]) and torch.equal(result[3, 0], two.scenes[1, 0])


@pytest.mark.parametrize("region, message", [
    (torch.zeros(1, 64, 64), "got an empty mask"),
    (torch.zeros(1, 20, 30), "got an empty mask"),
    (torch.cat([torch.ones(1, 20, 30), torch.zeros(1, 20, 30)]), "got an empty mask"),
    (torch.ones(1, 30, 20), "scene's size 30x20, .* got 1 of 20x30"),
    (torch.ones(3, 20, 30), "one for each of 2 scenes, got 3 of 30x20"),
    (torch.full((1, 20, 30), float("nan")), "got NaN or infinity"),
])
def test_a_region_that_does_not_fit_is_refused(region, message):
    with pytest.raises(ValueError, match=message):
        find_place(scenes(20, 30, 2), region)


@pytest.mark.parametrize("scene", [
    torch.ones(0, 8, 8, 3), torch.ones(1, 0, 8, 3), torch.ones(8, 8, 3), torch.ones(1, 8, 8, 4),
    torch.ones(1, 8, 8, 3, dtype=torch.uint8),
])
def test_what_is_no_scene_is_refused(scene):
    with pytest.raises(ValueError, match=r"Expected scenes \[S, H, W, 3\] with values in 0..1, got shape"):
        find_place(scene)


def test_a_scene_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="Expected a scene .* got NaN or infinity"):
        find_place(scenes(8, 8) / 0)


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (1, 16, 8, 3), (3, 8, 16, 3), (8, 16, 3)])
def test_pictures_of_another_size_or_number_are_refused(shape):
    place = find_place(scenes(8, 15, 2))
    with pytest.raises(ValueError, match="Expected pictures of 16x8 pixels, a multiple of 2, got shape"):
        put_back(place, torch.ones(shape))
