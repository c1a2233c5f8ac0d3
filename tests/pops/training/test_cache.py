"""Examples become embeddings once: nothing is encoded twice, and what cannot be read is named."""

from __future__ import annotations

import random

import pytest
import torch

from pit.files.weights import WeightFileError
from pit.ip_adapter.encoder import probe_picture
from pit.pops.embeddings import CROPPED, LETTERBOXED, pixel_values
from pit.pops.modes import MODES
from pit.pops.training.cache import encode_operator_dataset
from pit.pops.training.draw import SWAP_SHARE, draw_texture, draw_union
from pit.pops.training.layouts import read_operator_dataset
from pit.pops.training.prepare import Versions, prepare
from pit.pops.training.words import WordBank, read_word_bank
from tests.golden import assert_equal
from tests.pops.tiny import WIDTH
from tests.pops.training.datasets import Counted, encode, picture, write_dataset

PICTURES = {"texture": 3 + 3 * 2, "scene": 1 + 2 + 1, "union": 1 + 2 + 2, "instruct": 1, "clothes": 1 + 2}
HALF = {"rtol": 2e-3, "atol": 2e-3}


def assert_half(ours, theirs):
    torch.testing.assert_close(ours, theirs, **HALF)


@pytest.mark.parametrize("mode", MODES)
def test_no_picture_is_ever_encoded_twice(tmp_path, mode):
    write_dataset(tmp_path / "data", mode, 3, randoms=2)
    counted = Counted()
    first = encode(tmp_path / "data", mode, tmp_path / "cache", counted, versions=2)
    probes = 1
    assert counted.pictures == probes + 3 * PICTURES[mode] + 2
    said = len(counted.lines)
    again = encode(tmp_path / "data", mode, tmp_path / "cache", counted, versions=2)
    assert counted.pictures == 2 * probes + 3 * PICTURES[mode] + 2
    assert again.files == first.files and again.randoms == first.randoms
    assert again.fingerprint == first.fingerprint and again.width == WIDTH
    assert len(counted.lines) - said == (1 if mode == "instruct" else 0)
    write_dataset(tmp_path / "more", mode, 4, randoms=2)
    more = encode(tmp_path / "more", mode, tmp_path / "cache", counted, versions=2)
    assert counted.pictures == 3 * probes + 4 * PICTURES[mode] + 2 and set(first.files) < set(more.files)
    assert more.fingerprint != first.fingerprint


@pytest.mark.parametrize("mode", MODES)
def test_the_embeddings_are_those_of_the_prepared_pictures(tmp_path, mode):
    folder, counted = write_dataset(tmp_path / "data", mode, 1), Counted()
    cache = encode(folder, mode, tmp_path / "cache", counted, versions=1)
    example = read_operator_dataset(folder, mode).examples[0]
    found = prepare(mode, example, Versions(1, 0))
    fit = LETTERBOXED if mode == "clothes" else CROPPED
    drawn = cache.draw(0, random.Random(0))
    targets = counted.encode(pixel_values(found["target"], fit, 32))
    assert any(torch.allclose(drawn.target, each, **HALF) for each in targets)
    if mode in ("scene", "union"):
        expected = [counted.encode(pixel_values(found[name], fit, 32))[0] for name in ("first", "second")]
        slots = drawn.slots if torch.allclose(drawn.slots[0], expected[0], **HALF) else \
            drawn.slots.flip(0)
        assert_half(slots, torch.stack(expected))
    if mode == "clothes":
        assert_half(drawn.slots, counted.encode(pixel_values(found["parts"], fit, 32)))
    assert (drawn.words is None) == (drawn.sentence is None) == (mode != "instruct")


@pytest.mark.parametrize("change", [{"versions": 3}, {"seed": 1}])
def test_other_versions_share_nothing(tmp_path, change):
    folder = write_dataset(tmp_path / "data", "union", 2)
    one = encode(folder, "union", tmp_path / "cache")
    assert not set(one.files) & set(encode(folder, "union", tmp_path / "cache", **change).files)


def test_other_encoders_share_nothing(tmp_path):
    folder = write_dataset(tmp_path / "data", "union", 2)
    one, other = (encode(folder, "union", tmp_path / "cache", Counted(seed=seed)) for seed in (0, 1))
    assert not set(one.files) & set(other.files) and one.models != other.models


def test_canceling_keeps_what_is_encoded(tmp_path):
    folder, counted = write_dataset(tmp_path / "data", "instruct", 4), Counted()

    def cancel(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(folder, "instruct", tmp_path / "cache", counted, on_progress=cancel)
    assert counted.pictures == 1 + 2
    assert len(encode(folder, "instruct", tmp_path / "cache", counted).files) == 4
    assert counted.pictures == 2 + 4


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    folder = write_dataset(tmp_path / "data", "union", 3, randoms=2)
    (folder / "cat_and_hat_1_OBJ_0.png").write_bytes(b"none")
    (folder / "randoms" / "0.jpg").write_bytes(b"none")
    dataset = read_operator_dataset(folder, "union")
    cache, skipped = encode_operator_dataset(dataset, tmp_path / "cache", Counted().encoders())
    assert len(cache.names) == 2 and len(cache.randoms) == 1
    assert [each.path.name for each in skipped] == ["cat_and_hat_1.jpg", "0.jpg"]
    assert "cat_and_hat_1_OBJ_0.png cannot be read" in skipped[0].why
    for number in (0, 2):
        (folder / f"cat_and_hat_{number}.jpg").write_bytes(b"none")
    with pytest.raises(ValueError, match="got none of 3: .*cannot be read"):
        encode_operator_dataset(dataset, tmp_path / "cache", Counted().encoders())


def test_damaged_files_of_the_cache_are_named(tmp_path):
    cache = encode(write_dataset(tmp_path / "data", "scene", 1), "scene", tmp_path / "cache")
    cache.files[0].write_bytes(b"")
    with pytest.raises(WeightFileError, match=cache.files[0].name):
        cache.draw(0, random.Random(0))


def test_broken_encoders_are_refused(tmp_path):
    dataset = read_operator_dataset(write_dataset(tmp_path / "data", "instruct", 1), "instruct")
    with pytest.raises(ValueError, match="Expected a text encoder for the mode instruct, got none"):
        encode_operator_dataset(dataset, tmp_path / "cache", Counted().encoders(words=False))
    with pytest.raises(ValueError, match="Expected at least 1 version of each picture, got 0"):
        encode_operator_dataset(dataset, tmp_path / "cache", Counted().encoders(), versions=0)
    other = Counted()
    other.width = WIDTH + 1
    with pytest.raises(ValueError, match=f"of the width of the image encoder, {WIDTH}, got {WIDTH + 1}"):
        encode_operator_dataset(dataset, tmp_path / "cache", other.encoders())
    broken = Counted()
    encode_of = broken.encode
    probe = pixel_values([probe_picture(32)], CROPPED, 32)
    broken.encode = lambda pixels: encode_of(pixels) / (1.0 if pixels.equal(probe) else 0.0)
    with pytest.raises(ValueError, match="Expected finite embeddings from tiny, got NaN or infinite"):
        encode_operator_dataset(dataset, tmp_path / "cache", broken.encoders())


def test_a_texture_shows_one_picture_of_the_object_and_a_patch_of_the_target():
    stored = {"target": torch.arange(3.0)[:, None], "second": 10 * torch.arange(6.0)[:, None]}
    pairs = []
    for seed in range(500):
        drawn = draw_texture(stored, random.Random(seed))
        source, patch = drawn.slots[:, 0].tolist()
        assert patch // 20 == drawn.target.item()
        pairs.append((source == drawn.target.item(), patch))
    assert 60 < sum(same for same, _ in pairs) < 140  # a fifth
    assert len({patch for _, patch in pairs}) == 6
    alone = {"target": torch.zeros(1, 1), "second": torch.ones(2, 1)}
    assert draw_texture(alone, random.Random(0)).slots[:, 0].tolist() == [0, 1]


def test_the_things_of_a_union_are_swapped_as_often_as_not():
    stored = {"target": torch.zeros(1, 1), "first": torch.ones(2, 1), "second": torch.full((2, 1), 2.0)}
    swapped = [draw_union(stored, random.Random(seed)).slots[0].item() == 2 for seed in range(400)]
    assert abs(sum(swapped) / 400 - SWAP_SHARE) < 0.1


def test_the_words_of_a_picture_and_its_sentences_belong_together(tmp_path):
    folder = write_dataset(tmp_path / "data", "instruct", 1)
    (folder / "adjectives.txt").write_text("shiny\n\nvery  old\nshiny\n", encoding="utf-8")
    (folder / "art_types.txt").write_text("\ufeffsketch", encoding="utf-8")
    bank = read_word_bank(folder)
    assert bank == WordBank(("shiny", "very old"), ("sketch",))
    counted = Counted()
    cache = encode(folder, "instruct", tmp_path / "cache", counted, versions=8)
    sentences = {"shiny": "A shiny {}", "very old": "A very old {}", "sketch": "A sketch of a {}"}
    seen = set()
    for seed in range(50):
        drawn = cache.draw(0, random.Random(seed))
        word = bank.all[drawn.word]
        seen.add(word)
        [state], said = counted.words([word])[0], counted.words(
            [sentences[word].format("old chair on grass")])[1][0]
        assert_equal(drawn.words, state)
        assert_half(drawn.sentence, said)
    assert len(seen) > 1


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00", b"word " * 20])
def test_lists_of_words_that_are_none_are_named(tmp_path, content):
    (tmp_path / "adjectives.txt").write_bytes(content)
    with pytest.raises(ValueError, match="adjectives.txt: expected"):
        read_word_bank(tmp_path)


def test_our_own_words_are_words():
    bank = WordBank()
    assert len(bank.adjectives) > 50 and len(bank.art_types) > 30
    assert len(bank.all) == len(bank.adjectives) + len(bank.art_types)
    assert all(word == word.strip() and word for word in bank.all)


def test_a_picture_smaller_than_a_pixel_of_its_length_is_skipped(tmp_path):
    folder = write_dataset(tmp_path / "data", "instruct", 2)
    picture(0, (2000, 2)).save(folder / "line_9.png")
    dataset = read_operator_dataset(folder, "instruct")
    cache, skipped = encode_operator_dataset(dataset, tmp_path / "cache", Counted().encoders())
    assert len(cache.names) == 2 and "500 to 1" in skipped[0].why
