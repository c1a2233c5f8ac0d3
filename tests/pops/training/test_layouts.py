"""The published folders, read by names alone; what does not belong together is named."""

from __future__ import annotations

import shutil

import pytest

from pit.pops.modes import MODES
from pit.pops.training.layouts import describe_operator_dataset, read_operator_dataset, words_in
from tests.pops.training.datasets import picture, write_dataset


@pytest.mark.parametrize("mode, roles", [
    ("texture", {"pictures": 3, "mask": 1, "box": 1}), ("scene", {"picture": 1, "mask": 1, "inpainted": 1}),
    ("union", {"picture": 1, "objects": 2}), ("instruct", {"picture": 1}),
    ("clothes", {"picture": 1, "labels": 1}),
])
def test_the_published_layout_of_each_mode_is_read(tmp_path, mode, roles):
    dataset = read_operator_dataset(write_dataset(tmp_path, mode, 3, randoms=2), mode)
    assert len(dataset.examples) == 3 and not dataset.skipped and len(dataset.randoms) == 2
    for example in dataset.examples:
        assert {role: len(paths) for role, paths in example.files.items()} == roles
    assert [each.name for each in dataset.examples] == sorted(each.name for each in dataset.examples)
    assert f"3 examples for {mode}, 2 random pictures" in describe_operator_dataset(dataset)


@pytest.mark.parametrize("mode, gone, why", [
    ("texture", "chair_on_grass_1/mask.png", "without a picture and mask.png"),
    ("scene", "dog_1_inpainted.npy", "without the mask"),
    ("scene", "dog_1.jpg", "without its picture"),
    ("union", "cat_and_hat_1_OBJ_1.png", "without two cut-outs"),
    ("union", "cat_and_hat_1.jpg", "without its picture"),
    ("clothes", "person_1_mask.png", "without its map of labels"),
    ("clothes", "person_1.jpg", "without its picture"),
])
def test_what_does_not_belong_together_is_named(tmp_path, mode, gone, why):
    (write_dataset(tmp_path, mode, 3) / gone).unlink()
    dataset = read_operator_dataset(tmp_path, mode)
    assert len(dataset.examples) == 2
    assert any(why in each.why for each in dataset.skipped)
    assert why in describe_operator_dataset(dataset)


def test_scenes_need_no_inpainting_and_take_plain_masks(tmp_path):
    write_dataset(tmp_path, "scene", 2)
    (tmp_path / "dog_0_inpainted.jpg").unlink()
    (tmp_path / "dog_0_inpainted.npy").rename(tmp_path / "dog_0.npy")
    (tmp_path / "dog_1_inpainted.npy").unlink()
    picture(3).save(tmp_path / "dog_1_mask.png")
    first, second = read_operator_dataset(tmp_path, "scene").examples
    assert first.files.keys() == {"picture", "mask"} and first.files["mask"][0].name == "dog_0.npy"
    assert second.files["mask"][0].name == "dog_1_mask.png" and "inpainted" in second.files


@pytest.mark.parametrize("mode, names", [
    ("scene", ("dog_00001_", "dog_mask_00001_", "dog_inpainted_00001_")),
    ("union", ("cat_00002_", "cat_OBJ_0_00002_", "cat_OBJ_1_00002_")),
    ("clothes", ("man_00012_", "man_mask_00012_")),
    ("texture", ("base_00001_", "moss_00002_", "mask_00001_")),
    ("instruct", ("old_chair_00001_",)),
])
def test_the_numbers_of_save_image_tell_what_belongs_together(tmp_path, mode, names):
    place = tmp_path / "chair" if mode == "texture" else tmp_path
    place.mkdir(exist_ok=True)
    for name in names:
        picture(1).save(place / f"{name}.png")
    dataset = read_operator_dataset(tmp_path, mode)
    [example] = dataset.examples
    assert not dataset.skipped and sum(map(len, example.files.values())) == len(names)
    assert example.name == ("chair" if mode == "texture" else names[0])


def test_an_object_that_was_made_twice_has_no_mask_that_fits_all_pictures(tmp_path):
    for folder, masks in (("chair", ("mask_00001_", "mask_00002_")), ("cup", ("mask", "mask_00001_")),
                          ("hat", ("mask_00002_",))):
        (tmp_path / folder).mkdir()
        for name in ("base_00001_", "base_00002_", *masks):
            picture(1).save(tmp_path / folder / f"{name}.png")
    dataset = read_operator_dataset(tmp_path, "texture")
    assert [each.name for each in dataset.examples] == ["hat"]
    assert {each.path.name for each in dataset.skipped if "several masks" in each.why} == {"chair", "cup"}


def test_of_two_pictures_that_count_as_one_the_second_is_named(tmp_path):
    for name in ("dog_00001_", "dog_00001__mask", "dog_mask_00001_"):
        picture(1).save(tmp_path / f"{name}.png")
    dataset = read_operator_dataset(tmp_path, "scene")
    [example], [skipped] = dataset.examples, dataset.skipped
    assert example.files["mask"][0].stem == "dog_00001__mask"
    assert skipped.path.stem == "dog_mask_00001_" and "same name" in skipped.why


def test_parts_as_make_parts_writes_them_are_composed(tmp_path):
    for name, parts in (("a", 2), ("b", 14), ("c", 0)):
        (tmp_path / "target").mkdir(exist_ok=True)
        (tmp_path / "parts" / name).mkdir(parents=True)
        picture(1).save(tmp_path / "target" / f"{name}.png")
        for number in range(parts):
            picture(number).save(tmp_path / "parts" / name / f"{number}.png")
    dataset = read_operator_dataset(tmp_path, "clothes")
    assert [len(each.files["parts"]) for each in dataset.examples] == [2, 12]
    assert [each.path.name for each in dataset.skipped] == ["12.png", "13.png", "c.png"]


@pytest.mark.parametrize("stem, words", [
    ("old_chair_on_grass_17", "old chair on grass"), ("chair__3", "chair"), ("chair_00001_", "chair"),
    ("chair_on_grass", "chair on grass"), ("a blue chair_2_17", "a blue chair"), ("00017", ""),
])
def test_the_words_of_a_name_lose_the_numbers_at_its_end(stem, words):
    assert words_in(stem) == words


def test_folders_of_backgrounds_and_random_pictures_may_lie_elsewhere(tmp_path):
    write_dataset(tmp_path / "data", "scene", 1)
    shutil.copytree(write_dataset(tmp_path / "more", "instruct", 3), tmp_path / "other")
    dataset = read_operator_dataset(tmp_path / "data", "scene", tmp_path / "more", tmp_path / "other")
    assert len(dataset.backgrounds) == len(dataset.randoms) == 3
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere"):
        read_operator_dataset(tmp_path / "data", "scene", tmp_path / "nowhere")


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_without_examples_is_refused_with_its_layout(tmp_path, mode):
    (tmp_path / "notes.doc").write_text("none")
    with pytest.raises(ValueError, match=f"^Expected .* for the mode {mode}; got in .*notes.doc"):
        read_operator_dataset(tmp_path, mode)
    with pytest.raises(FileNotFoundError, match="no folder at"):
        read_operator_dataset(tmp_path / "nowhere", mode)


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected one of texture, .*, got 'paint'"):
        read_operator_dataset(tmp_path, "paint")
