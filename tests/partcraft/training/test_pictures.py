"""The pictures that words are learned from: which count, what their codes stand for, what is encoded once."""
from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pit.encoders.dino import dino_pixels
from pit.files.weights import WeightFileError, read_state
from pit.messages import ShortError
from pit.partcraft.discovery import codes_of, find_parts
from pit.partcraft.training.cache import Preparation, cut, encode_pictures, stamp_of
from pit.partcraft.training.pictures import (
    BY_CLUSTERS,
    BY_FOLDERS,
    as_masks,
    class_names,
    coding_of,
    read_pictures,
)
from tests.partcraft.training.small import (
    BACK,
    CODES,
    LEFT,
    RIGHT,
    SEEN,
    SIZE,
    color_clusters,
    color_encoders,
    draw_picture,
    encoded,
    features,
    write_pictures,
)


def encode(folder, encoders=None, clusters=None, **settings):
    clusters = clusters or color_clusters()
    pictures = read_pictures(folder / "pictures")
    preparation = Preparation(**{"size": SIZE, "variants": 2, "mirrored": True} | settings)
    coding = coding_of(clusters, pictures, BY_CLUSTERS)
    return encode_pictures(
        pictures, folder / "cache", encoders or color_encoders(), clusters, coding, preparation)


def test_the_parts_of_the_pictures_are_found():
    seen = find_parts(features(dino_pixels([draw_picture(0), draw_picture(1)], SEEN, SEEN)), color_clusters())
    assert set(seen.labels.unique().tolist()) == {BACK, LEFT, RIGHT}
    assert codes_of(seen, color_clusters()).tolist() == [[0, 0, 0], [0, 1, 1]]


def test_masks_and_codes_are_worked_out_once(tmp_path):
    cache = encoded(tmp_path)
    times = {path: path.stat().st_mtime_ns for each in cache.files for path in each}
    assert len(times) == 12

    def fails(*_args):
        raise AssertionError("encoded again")

    refusing = replace(color_encoders(), latents=fails, features=fails)
    again, _ = encode(tmp_path, refusing)
    assert again.files == cache.files and again.fingerprint == cache.fingerprint
    assert {path: path.stat().st_mtime_ns for path in times} == times
    sample = cache.read(0)
    assert sample.codes.tolist() == [0, 0, 0] and sample.labels.shape == (8, 8)
    assert torch.equal(as_masks(sample.labels[None].long(), 3).sum(dim=1), torch.ones(1, 8, 8))
    assert sample.latents.shape == (2, 8, 8, 8)


def test_more_pictures_only_add_files(tmp_path):
    before = encoded(tmp_path)
    write_pictures(tmp_path / "pictures", 8)
    after, _ = encode(tmp_path)
    assert set(before.files) < set(after.files) and len(after.files) == 8
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("changes", [{"size": 32}, {"mirrored": False}, {"seed": 1}])
def test_other_settings_are_other_files(tmp_path, changes):
    before = encoded(tmp_path)
    after, _ = encode(tmp_path, **changes)
    assert before.files[0] != after.files[0] and before.fingerprint != after.fingerprint
    if "seed" in changes:
        assert before.files[0][0] == after.files[0][0]  # the middle is cut by no chance


def test_other_models_and_other_clusters_have_a_folder_of_their_own(tmp_path):
    before = encoded(tmp_path)
    clusters = color_clusters()
    places = {before.files[0][0].parent}
    places.add(encode(tmp_path, color_encoders("2"))[0].files[0][0].parent)
    moved = replace(clusters, fine=clusters.fine + 1e-6)
    places.add(encode(tmp_path, clusters=moved)[0].files[0][0].parent)
    places.add(encode(tmp_path, clusters=replace(clusters, foreground=1))[0].files[0][0].parent)
    assert len(places) == 4
    named = replace(clusters, names=clusters.vocabulary)
    assert stamp_of(named) == stamp_of(clusters)


def test_what_cannot_be_used_is_named(tmp_path):
    write_pictures(tmp_path / "pictures")
    (tmp_path / "pictures" / "torn.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "pictures" / "plain.png")
    Image.radial_gradient("L").resize((200, 9)).save(tmp_path / "pictures" / "long.png")
    cache, skipped = encode(tmp_path)
    assert len(cache.names) == 6
    told = {each.path.name: each.why for each in skipped}
    assert "cannot be read" in told["torn.png"] and "of one color" in told["plain.png"]
    assert "20 to 1" in told["long.png"]


def test_a_folder_without_a_usable_picture_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "pictures" / "plain.png")
    with pytest.raises(ShortError, match="none of 1: it cannot be used .*of one color"):
        encode(tmp_path)


def test_features_that_are_not_finite_end_the_encoding(tmp_path):
    write_pictures(tmp_path / "pictures")
    broken = replace(color_encoders(), features=lambda pixels: features(pixels) * float("nan"))
    with pytest.raises(ShortError, match="NaN or infinity"):
        encode(tmp_path, broken)


def test_clusters_of_another_encoder_are_refused(tmp_path):
    write_pictures(tmp_path / "pictures")
    other = replace(color_encoders(), features=lambda pixels: features(pixels)[:, :2])
    with pytest.raises(ShortError, match="of the encoder that the parts were found with"):
        encode(tmp_path, other)


def test_a_damaged_file_of_the_cache_is_told(tmp_path):
    cache = encoded(tmp_path)
    cache.files[0][0].write_bytes(b"torn")
    with pytest.raises(WeightFileError, match="safetensors"):
        cache.read(0)


def test_cancel_keeps_what_is_done(tmp_path):
    class Cancelled(BaseException):
        pass

    def on_progress(done, total):
        if done == 3:
            raise Cancelled

    write_pictures(tmp_path / "pictures")
    clusters, pictures = color_clusters(), read_pictures(tmp_path / "pictures")
    with pytest.raises(Cancelled):
        encode_pictures(
            pictures, tmp_path / "cache", color_encoders(), clusters,
            coding_of(clusters, pictures, BY_CLUSTERS), Preparation(SIZE, 1), on_progress)
    assert len(list((tmp_path / "cache").glob("*/*.safetensors"))) == 3


@pytest.mark.parametrize("settings, message", [
    ({"size": 60}, "multiple of 8, got 60"), ({"size": 0}, "multiple of 8, got 0"),
    ({"variants": 0}, "at least 1 variant"),
])
def test_sizes_out_of_range_are_refused(tmp_path, settings, message):
    write_pictures(tmp_path / "pictures")
    with pytest.raises(ValueError, match=message):
        encode(tmp_path, **settings)


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (64, 64), (7, 9)])
def test_a_cut_lies_in_the_picture(size):
    picture = Image.new("RGB", size)
    middle, (left, top), width = cut(picture, 64, None)
    assert middle.size == (64, 64) and width >= 64 and 2 * left in (width - 64, width - 65)
    rng = random.Random(0)
    places = {cut(picture, 64, rng)[1] for _ in range(20)}
    assert len(places) > 1 or size[0] == size[1]
    assert all(0 <= left <= width - 64 and top >= 0 for left, top in places)


def test_what_sdxl_is_told_of_a_cut_and_its_mirror_image(tmp_path):
    sample = encoded(tmp_path).read(0, 1)
    (height, width, top, left, *sizes), mirrored = (row.tolist() for row in sample.time_ids)
    assert (height, width, *sizes) == (40, 48, SIZE, SIZE)
    assert mirrored == [height, width, top, round(48 * SIZE / 40) - SIZE - left, *sizes]


def test_clusters_tell_the_codes(tmp_path):
    cache = encoded(tmp_path)
    assert cache.coding.count == CODES and cache.coding.vocabulary == color_clusters().vocabulary
    for index, name in enumerate(cache.names):
        dark = int("Dark" in name)
        assert cache.codes(index, cache.read(index)).tolist() == [0, dark, dark]


def test_folders_are_classes_as_published(tmp_path):
    cache = encoded(tmp_path, by=BY_FOLDERS)
    known = cache.coding.vocabulary
    assert known.classes == ("Light one", "Dark")
    assert [(part.count, part.named) for part in known.parts] == [(1, False), (2, True), (2, True)]
    for index, name in enumerate(cache.names):
        dark = int("Dark" in name)
        assert cache.codes(index, cache.read(index)).tolist() == [0, dark, dark]
    assert cache.fingerprint != encoded(tmp_path).fingerprint


def test_a_part_that_a_picture_lacks_has_the_code_for_that(tmp_path):
    clusters = color_clusters()
    pictures = read_pictures(write_pictures(tmp_path))
    for by in (BY_CLUSTERS, BY_FOLDERS):
        coding = coding_of(clusters, pictures, by)
        found = coding.codes(pictures.names[0], torch.tensor([0, clusters.absent, 1]), clusters.absent)
        assert found[1] == coding.count and found[0] == 0 and found[2] < coding.count


def test_more_classes_than_codes_are_codes_as_well(tmp_path):
    for number in range(5):
        (tmp_path / f"class {number}x").mkdir()
        draw_picture(number).save(tmp_path / f"class {number}x" / "a.png")
    coding = coding_of(color_clusters(), read_pictures(tmp_path), BY_FOLDERS)
    assert coding.count == 5 and [part.count for part in coding.vocabulary.parts] == [1, 5, 5]


def test_classes_need_folders(tmp_path):
    draw_picture(0).save(tmp_path / "a.png")
    with pytest.raises(ShortError, match="a folder for each class"):
        coding_of(color_clusters(), read_pictures(tmp_path), BY_FOLDERS)
    write_pictures(tmp_path)
    with pytest.raises(ShortError, match="a folder for each class"):
        coding_of(color_clusters(), read_pictures(tmp_path), BY_FOLDERS)


def test_names_of_classes_are_those_of_the_folders():
    assert class_names(["001.Black_footed_Tern", "017.Cardinal"]) == ["Black footed Tern", "Cardinal"]
    assert class_names(["1 wing", "2 wing"]) == ["1 wing", "2 wing"]  # would be the same
    assert class_names(["a<b>:c", "12x"]) == ["abc", "x"]


@pytest.mark.parametrize("names", [["12", "13"], ["Owl", "owl"]])
def test_names_that_no_word_can_hold_are_refused(tmp_path, names):
    for number, name in enumerate(names):
        (tmp_path / name).mkdir(exist_ok=True)
        draw_picture(number).save(tmp_path / name / f"{number}.png")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes both names for one")
    with pytest.raises(ShortError, match="Expected (the name of a code|each code)"):
        coding_of(color_clusters(), read_pictures(tmp_path), BY_FOLDERS)


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder at"):
        read_pictures(tmp_path / "none")
    with pytest.raises(ShortError, match="got none"):
        read_pictures(tmp_path)


def test_the_files_hold_what_is_described(tmp_path):
    state, _ = read_state(encoded(tmp_path).files[0][0])
    assert {key: list(value.shape) for key, value in state.items()} == {
        "latents": [2, 8, 8, 8], "time_ids": [2, 6], "labels": [8, 8], "codes": [3],
    }
