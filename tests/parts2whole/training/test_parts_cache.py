"""Encoding for Parts2Whole: nothing twice, crops that belong together, what cannot be used."""
from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pit.files.weights import WeightFileError
from pit.parts2whole.training.cache import Preparation, encode_parts
from pit.parts2whole.training.crops import LEAST, crop_box, cropped, to_channels
from pit.parts2whole.training.layout import read_parts_dataset
from tests.parts2whole.training.people import (
    SIZE,
    WIDTH,
    Counting,
    encoded,
    lines_of,
    write_lines,
    write_people,
)


def test_an_example_is_read_as_it_was_encoded(tmp_path):
    cache = encoded(tmp_path, 3, held_out=1)
    assert len(cache.examples) == 3 and len(cache.held_out) == 1 and cache.empty.shape == (77, WIDTH)
    sample = cache.read(cache.examples[2])
    assert sample.latents.shape == (8, SIZE // 8, SIZE // 8) and sample.pose.shape == (3, SIZE, SIZE)
    assert sample.references.shape == (3, 4, SIZE // 8, SIZE // 8)
    assert sample.masks.shape == (3, 1, SIZE, SIZE)
    assert sample.labels.shape == (3, 77, WIDTH) and sample.tokens.shape == (3, WIDTH)
    words = Counting().words(["person 2", "shoes"])
    torch.testing.assert_close(sample.text, words[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(sample.labels[1], words[1], atol=1e-3, rtol=0)


def test_nothing_is_encoded_twice(tmp_path):
    first, again, more = Counting(), Counting(), Counting()
    cache = encoded(tmp_path, 4, encoders=first)
    # 4 targets and 1 + 2 + 3 + 1 references in 2 variants; 4 captions, 3 labels and no words.
    assert (first.pictures, first.images, first.lines) == (22, 7, 8)
    same = encoded(tmp_path, encoders=again)
    assert (again.pictures, again.images, again.lines) == (0, 0, 0)
    assert same.examples == cache.examples and same.fingerprint == cache.fingerprint
    # A second example of the same pictures with other words.
    folder = tmp_path / "people"
    lines = lines_of(folder)
    write_lines(folder, [*lines, lines[2] | {"target_id": "other", "caption": "someone"}])
    longer = encoded(tmp_path, encoders=more, variants=3)
    assert (more.pictures, more.images, more.lines) == (11, 0, 1)
    assert longer.examples[0].target[:2] == cache.examples[0].target
    assert longer.examples[4].target == longer.examples[2].target and longer.fingerprint != cache.fingerprint


@pytest.mark.parametrize("name", ["face/0_mask.png", "densepose/0.png"])
def test_another_mask_or_pose_is_another_dataset_and_encodes_nothing(tmp_path, name):
    first, again = encoded(tmp_path), Counting()
    path = tmp_path / "people" / name
    Image.new(Image.open(path).mode, (80, 80), "white").save(path)
    other = encoded(tmp_path, encoders=again)
    assert other.fingerprint != first.fingerprint and (again.pictures, again.lines) == (0, 0)


@pytest.mark.parametrize("change", [{"width": 56}, {"height": 72}, {"seed": 1}])
def test_another_preparation_makes_other_latents(tmp_path, change):
    first, other = encoded(tmp_path), encoded(tmp_path, **change)
    assert first.examples[0].target[1] != other.examples[0].target[1]
    assert (first.examples[0].target[0] == other.examples[0].target[0]) == ("seed" in change)
    assert first.examples[0].caption == other.examples[0].caption and first.fingerprint != other.fingerprint


def test_other_models_have_a_folder_of_their_own(tmp_path):
    first, other = encoded(tmp_path), encoded(tmp_path, encoders=Counting("2"))
    assert first.examples[0].caption.parent != other.examples[0].caption.parent


@pytest.mark.parametrize("size", [(80, 80), (80, 120), (120, 80)])
def test_pose_and_mask_are_cropped_like_their_pictures(tmp_path, size):
    """Where a picture has its square, so have its mask and its pose, in the random variants too."""
    folder = write_people(tmp_path / "people", 3, size=size)
    for label in ("face", "shoes", "upper body clothes"):  # the masks as pictures
        for path in (folder / label).glob("*_mask.png"):
            Image.open(path).convert("RGB").save(path.with_name(path.name.replace("mask", "rgb")))
    for number in range(3):
        Image.open(folder / "images" / f"{number}.png").save(folder / "densepose" / f"{number}.png")
    cache = encoded(tmp_path, variants=6)
    seen = set()
    for example in cache.examples:
        for variant in range(6):
            sample = cache.read(example, [variant] * (1 + len(example.parts)))
            pose = torch.nn.functional.avg_pool2d(sample.pose * 2 - 1, 8)
            assert (pose - sample.latents[:3]).abs().mean() < 0.02  # they differ in the filter alone
            masks = torch.nn.functional.avg_pool2d(sample.masks[:, 0] * 2 - 1, 8)
            assert (masks - sample.references[:, 0]).abs().max() < 0.02
            seen.add(tuple(sample.references[0, 0].flatten().tolist()))
    assert len(seen) > 3


@pytest.mark.parametrize("size, aspect", [((512, 512), 1.0), ((750, 1101), 1.0), ((300, 200), 2 / 3)])
def test_crops_are_nearly_the_largest_and_lie_anywhere(size, aspect):
    boxes = [crop_box(size, aspect, random.Random(seed)) for seed in range(200)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 1 + 1e-9 and 0 <= top < bottom <= 1 + 1e-9
        width, height = (right - left) * size[0], (bottom - top) * size[1]
        assert LEAST - 1e-9 <= width / height / aspect <= 1 + 1e-9
        largest = min(size[0], size[1] * width / height)
        assert LEAST**0.5 - 1e-9 <= width / largest <= 1 + 1e-9
    assert len({box[:2] for box in boxes}) > 150
    left, top, right, bottom = crop_box(size, aspect)
    assert (left, top) == pytest.approx((1 - right, 1 - bottom))
    assert right - left == pytest.approx(1) or bottom - top == pytest.approx(1)


def test_a_crop_at_the_edge_is_within_the_picture():
    picture = Image.linear_gradient("L")
    for seed in range(50):
        box = crop_box((256, 256), 1.0, random.Random(seed))
        assert to_channels(cropped(picture, (16, 24), box, Image.Resampling.LANCZOS)).shape == (1, 24, 16)


def test_transparency_is_the_mask_of_a_reference_without_one_and_the_rest_is_white(tmp_path):
    folder = write_people(tmp_path / "people", 1)
    picture = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 40, 80))
    picture.save(folder / "face" / "0_rgb.png")
    line = lines_of(folder)[0]
    del line["mask"]
    write_lines(folder, [line])
    cache = encoded(tmp_path)
    sample = cache.read(cache.examples[0])
    assert sample.masks[0, 0, :, :28].min() == 1 and sample.masks[0, 0, :, 36:].max() == 0
    assert sample.references[0, 1, :, 5:].min() == 1 and sample.references[0, 1, :, :3].max() == -1
    Image.new("RGB", (80, 80)).save(folder / "face" / "0_rgb.png")
    plain = encoded(tmp_path)
    assert plain.read(plain.examples[0]).masks.min() == 1


@pytest.mark.parametrize("name, picture, why", [
    ("images/1.png", None, "cannot be read"), ("densepose/1.png", None, "cannot be read"),
    ("face/1_rgb.png", None, "cannot be read"), ("face/1_mask.png", None, "cannot be read"),
    ("face/1_mask.png", Image.new("L", (80, 80)), "with some white"),
    ("face/1_mask.png", Image.new("L", (40, 40), 255), "a mask of 80x80 pixels .* got 40x40"),
    ("densepose/1.png", Image.new("RGB", (80, 60)), "pose of the aspect of its picture, 80x80"),
])
def test_examples_that_cannot_be_used_are_named_and_left_out(tmp_path, name, picture, why):
    folder = write_people(tmp_path / "people", 3)
    if picture is None:
        (folder / name).write_bytes(b"no picture")
    else:
        picture.save(folder / name)
    dataset, seen = read_parts_dataset(folder), []
    cache, skipped = encode_parts(
        dataset.examples, (), tmp_path / "cache", Counting().encoders, Preparation(SIZE, SIZE),
        lambda done, total: seen.append((done, total)),
    )
    assert len(cache.examples) == 2 and seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match=why):
        raise ValueError(skipped[0].why)


def test_no_example_at_all_is_refused(tmp_path):
    folder = write_people(tmp_path / "people", 1)
    (folder / "images" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="at least one example that can be used, got none of 1"):
        encoded(tmp_path)


@pytest.mark.parametrize("what", ["latents", "tokens", "words"])
def test_encoders_that_give_no_numbers_are_named(tmp_path, what):
    broken = Counting()
    broken.encoders = replace(broken.encoders, **{what: lambda given: torch.full((1, 8), torch.nan)})
    names = {"latents": "VAE", "tokens": "image encoder", "words": "text encoder"}
    with pytest.raises(ValueError, match=f"finite values from the {names[what]}, got NaN"):
        encoded(tmp_path, encoders=broken)


def test_a_full_disk_is_no_fault_of_an_example(tmp_path, monkeypatch):
    def full(path, sample, half=()):
        raise WeightFileError(f"{path}: no space")

    monkeypatch.setattr("pit.parts2whole.training.cache.write_sample", full)
    with pytest.raises(WeightFileError, match="no space"):
        encoded(tmp_path)


@pytest.mark.parametrize("settings, message", [
    ({"width": 60}, "multiples of 8, got 60x64"), ({"height": 0}, "multiples of 8, got 64x0"),
    ({"variants": 0}, "at least 1 variant of each picture, got 0"),
])
def test_a_preparation_out_of_range_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        encoded(tmp_path, **settings)


def test_lists_of_the_same_example_count_once(tmp_path):
    folder = write_people(tmp_path / "people", 2)
    line = json.dumps(lines_of(folder)[0])
    write_lines(folder, [line, line])
    assert len(read_parts_dataset(folder).examples) == 1
