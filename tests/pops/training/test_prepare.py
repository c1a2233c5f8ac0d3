"""What is made of the files of an example: patches inside the mask, objects on other grounds, parts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from pit.files.pictures import PictureError
from pit.pops.training.layouts import read_operator_dataset
from pit.pops.training.patches import patch_inside, placed
from pit.pops.training.prepare import Versions, prepare
from tests.pops.training.datasets import picture, square_mask, write_dataset

TWO = Versions(2, 0)


def prepared(folder, mode, versions=TWO, backgrounds=None):
    dataset = read_operator_dataset(folder, mode, backgrounds)
    return prepare(mode, dataset.examples[0], Versions(versions.count, versions.seed, dataset.backgrounds))


def ramp(width: int, height: int) -> Image.Image:
    """A picture whose colors tell the place of each pixel."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=-1))


@pytest.mark.parametrize("seed", range(20))
def test_patches_are_squares_within_the_mask(seed):
    rng = random.Random(seed)
    mask = np.zeros((150, 200), bool)
    mask[20:140, 30:170] = True
    mask[60:70, 90:120] = False  # a hole
    patch = patch_inside(ramp(200, 150), mask, rng.randint(1, 100), rng)
    colors = np.asarray(patch)
    left, top = (int(value) for value in colors[0, 0, :2])
    assert patch.width == patch.height
    assert mask[top:top + patch.height, left:left + patch.width].all()
    assert tuple(colors[-1, -1, :2]) == (left + patch.width - 1, top + patch.height - 1)


def test_the_sides_of_patches_are_random_from_96_pixels_up():
    mask = np.ones((256, 256), bool)
    sides = {patch_inside(ramp(256, 256), mask, 128, random.Random(seed)).width for seed in range(200)}
    assert min(sides) >= 96 and max(sides) == 128 and len(sides) > 20


def test_where_no_patch_of_that_size_fits_the_widest_place_is_taken():
    mask = np.zeros((100, 100), bool)
    mask[10:15, 10:60], mask[40:61, 40:61] = True, True
    assert patch_inside(ramp(100, 100), mask, 99, random.Random(0)).size == (21, 21)
    mask[:] = False
    mask[3, 4] = True
    assert np.asarray(patch_inside(ramp(100, 100), mask, 99, random.Random(0))).tolist() == [[[4, 3, 0]]]


def test_things_are_placed_whole_on_white():
    thing = Image.new("RGB", (30, 10), "black")
    for seed in range(10):
        result = np.asarray(placed(thing, (60, 50), 0.9, random.Random(seed)))
        rows, columns = np.nonzero(result.max(axis=2) == 0)
        assert result.shape == (50, 60, 3) and np.ptp(columns) + 1 == 54 and np.ptp(rows) + 1 == 18


def test_textures_come_from_within_the_box_of_the_mask(tmp_path):
    write_dataset(tmp_path, "texture", 1)
    ramp(64, 64).save(tmp_path / "chair_on_grass_0" / "base.png")
    (tmp_path / "chair_on_grass_0" / "base.jpg").unlink()
    found = prepared(tmp_path, "texture")
    assert [len(found[name]) for name in ("target", "second")] == [3, 6]
    # The mask is that of a crop of 40 pixels, 4 of them free on each side, at 10 and 12.
    for patch in found["second"][:2]:
        colors = np.asarray(patch)
        assert colors[..., 0].min() >= 14 and colors[..., 0].max() < 46
        assert colors[..., 1].min() >= 16 and colors[..., 1].max() < 48


def test_without_a_box_the_mask_is_of_the_whole_picture(tmp_path):
    own = write_dataset(tmp_path, "texture", 1) / "chair_on_grass_0"
    (own / "box.json").unlink()
    with pytest.raises(PictureError, match="Expected a mask of 64x64 pixels in .*mask.png, .*, got 40x40"):
        prepared(tmp_path, "texture")
    Image.fromarray(square_mask()).save(own / "mask.png")
    assert len(prepared(tmp_path, "texture")["second"]) == 6


@pytest.mark.parametrize("box", ['{"x1": 1}', "[]", '{"x1": 9, "y1": 9, "x2": 3, "y2": 30}',
                                 '{"x1": "a", "y1": 9, "x2": 3, "y2": 30}', "{", "null",
                                 '{"x1": 1e999, "y1": 9, "x2": 3, "y2": 30}',
                                 '{"x1": 100, "y1": 9, "x2": 300, "y2": 30}'])
def test_damaged_boxes_are_named(tmp_path, box):
    own = write_dataset(tmp_path, "texture", 1) / "chair_on_grass_0"
    (own / "box.json").write_text(box)
    with pytest.raises(PictureError, match="Expected a box in|Expected a box inside"):
        prepared(tmp_path, "texture")


@pytest.mark.parametrize("mode, file", [
    ("texture", "chair_on_grass_0/mask.png"), ("scene", "dog_0_mask.png"),
])
def test_an_empty_mask_is_named(tmp_path, mode, file):
    write_dataset(tmp_path, mode, 1)
    (tmp_path / "dog_0_inpainted.npy").unlink(missing_ok=True)
    Image.new("L", (40, 40) if mode == "texture" else (64, 64)).save(tmp_path / file)
    with pytest.raises(PictureError, match="covers something in .*mask.png, got an empty one"):
        prepared(tmp_path, mode)


def test_pictures_of_several_sizes_do_not_share_a_mask(tmp_path):
    write_dataset(tmp_path, "texture", 1)
    picture(1, (32, 64)).save(tmp_path / "chair_on_grass_0" / "gold_1.jpg")
    with pytest.raises(PictureError, match="Expected pictures of one size in chair_on_grass_0"):
        prepared(tmp_path, "texture")


def test_objects_of_scenes_stand_on_white_or_on_backgrounds_of_their_size(tmp_path):
    write_dataset(tmp_path / "data", "scene", 1)
    (tmp_path / "grounds").mkdir()
    Image.new("RGB", (300, 20), "blue").save(tmp_path / "grounds" / "blue.png")
    found = prepared(tmp_path / "data", "scene", Versions(16, 0), tmp_path / "grounds")
    assert [len(found[name]) for name in ("target", "first", "second")] == [1, 16, 1]
    corners = [tuple(np.asarray(each)[0, 0].tolist()) for each in found["first"]]
    assert set(corners) == {(255, 255, 255), (0, 0, 255)}
    inside = [np.asarray(each)[8:-8, 8:-8] for each in found["first"]]
    assert all((each == np.asarray(found["target"][0])[8:-8, 8:-8]).all() for each in inside)


def test_without_inpainting_the_scene_is_a_patch_around_the_object(tmp_path):
    write_dataset(tmp_path, "scene", 1)
    (tmp_path / "dog_0_inpainted.jpg").unlink()
    with pytest.raises(PictureError, match="50 pixels of background around the object"):
        prepared(tmp_path, "scene")
    picture(0, (200, 200)).save(tmp_path / "dog_0.jpg")
    mask = np.zeros((200, 200), np.uint8)
    mask[:, :100] = 255
    np.save(tmp_path / "dog_0_inpainted.npy", mask)
    found = prepared(tmp_path, "scene")
    assert len(found["second"]) == 2 and min(each.width for each in found["second"]) >= 50


def test_things_of_a_union_lose_their_transparent_border_and_vary(tmp_path):
    write_dataset(tmp_path, "union", 1)
    found = prepared(tmp_path, "union", Versions(3, 0))
    assert [len(found[name]) for name in ("target", "first", "second")] == [1, 3, 3]
    pixels = [np.asarray(each) for each in found["first"]]
    assert all(each.shape == (64, 64, 3) for each in pixels) and (pixels[0] != pixels[1]).any()
    # A cut-out of 20 by 15 pixels, at 0.8 of a width of 64 at least.
    columns = [np.nonzero((each < 250).any(axis=(0, 2)))[0] for each in pixels]
    assert all(np.ptp(each) + 1 >= 45 for each in columns)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "cat_and_hat_0_OBJ_1.png")
    with pytest.raises(PictureError, match="transparent all over"):
        prepared(tmp_path, "union")


def test_garments_that_are_not_there_or_too_small_have_no_part(tmp_path):
    write_dataset(tmp_path, "clothes", 1)
    found = prepared(tmp_path, "clothes")
    assert [each.size for each in found["parts"]] == [(90, 90), (90, 100)]
    whole = np.asarray(found["target"][0])
    assert (np.asarray(found["parts"][1]) == whole[100:, :90]).all()
    Image.new("L", (200, 200), 11).save(tmp_path / "person_0_mask.png")
    with pytest.raises(PictureError, match="Expected the labels of garments .*, got none"):
        prepared(tmp_path, "clothes")
    Image.new("L", (20, 200), 4).save(tmp_path / "person_0_mask.png")
    with pytest.raises(PictureError, match="Expected labels of 200x200 pixels .* got 20x200"):
        prepared(tmp_path, "clothes")


def test_the_same_seed_gives_the_same_pictures_and_another_one_others(tmp_path):
    write_dataset(tmp_path, "union", 1)
    first, again, other = (prepared(tmp_path, "union", Versions(1, seed))["first"][0] for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_one_more_background_changes_few_versions(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(20)]
    few, more = (Versions(200, 0, paths[:count]) for count in (19, 20))
    changed = [few.background_of("a", i) != more.background_of("a", i) for i in range(200)]
    assert 0 < sum(changed) < 30
