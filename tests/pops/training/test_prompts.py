"""Prompts for pictures to learn from, and file names by which they are read."""

from __future__ import annotations

import pytest

from pit.pops.training.layouts import read_operator_dataset
from pit.pops.training.prompts import PAIRS, PairWords, emptied, lines_of_words, pair_prompts
from tests.pops.training.datasets import picture

SEEDS = range(200)


@pytest.mark.parametrize("mode", PAIRS)
def test_a_seed_always_gives_the_same_and_others_give_others(mode):
    drawn = [pair_prompts(mode, seed) for seed in SEEDS]
    assert drawn == [pair_prompts(mode, seed) for seed in SEEDS]
    assert len({each.names for each in drawn}) == len(drawn)
    assert len({each.prompt for each in drawn}) > 150
    assert all(0 <= seed < 2**64 for each in drawn for seed in each.seeds)


@pytest.mark.parametrize("mode", PAIRS)
def test_what_is_saved_by_these_names_is_read_as_examples(mode, tmp_path):
    for seed in (3, 4):
        names = pair_prompts(mode, seed).names
        for number, name in enumerate((*names, *names[2:]) if mode == "texture" else names):
            path = tmp_path / f"{name}_{1 + number // 3:05}_.png"
            path.parent.mkdir(exist_ok=True)
            picture(number).save(path)
    dataset = read_operator_dataset(tmp_path, mode)
    assert len(dataset.examples) == 2 and not dataset.skipped
    counts = [sum(map(len, each.files.values())) for each in dataset.examples]
    assert counts == [4 if mode == "texture" else 3] * 2


def test_what_a_run_left_in_part_does_not_join_the_next_one(tmp_path):
    for seed, names in ((1, slice(1)), (2, slice(3))):
        for name in pair_prompts("scene", seed).names[names]:
            picture(1).save(tmp_path / f"{name}_00001_.png")
    dataset = read_operator_dataset(tmp_path, "scene")
    [example], [skipped] = dataset.examples, dataset.skipped
    assert "_2_" in example.name and "_1_" in skipped.path.name


def test_variants_of_a_texture_are_made_from_other_materials_each():
    words = PairWords(("owl",), ("on a beach",), ("moss", "gold", "glass"), variants=8)
    drawn = [pair_prompts("texture", seed, words) for seed in SEEDS]
    assert {each.prompt for each in drawn} == {"an owl", "an owl on a beach"}
    assert {each.first for each in drawn} == {"owl"}
    assert all(len(each.second) == len(set(each.seeds)) == 8 for each in drawn)
    made = {text for each in drawn for text in each.second}
    assert {"an owl made from moss", "an owl made from gold and glass on a beach"} <= made


def test_a_scene_is_asked_for_without_its_object():
    drawn = pair_prompts("scene", 5, PairWords(("dog",), ("on a beach",)))
    assert drawn.prompt == "A photo of a dog on a beach" and drawn.first == "dog"
    assert drawn.second == ("A photo of an empty beach",) and drawn.names[0] == "dog_on_a_beach_5"


@pytest.mark.parametrize("place, scene", [
    ("on a beach", "an empty beach"), ("in an alley", "an empty alley"), ("on grass", "empty grass"),
    ("on the moon", "the empty moon"), ("in a field of wheat", "an empty field of wheat"),
    ("in theaters", "empty theaters"), ("beach", "empty beach"),
])
def test_a_place_becomes_an_empty_scene(place, scene):
    assert emptied(place) == scene


def test_the_things_of_a_union_are_two():
    words = PairWords(("cat", "hat"))
    for seed in SEEDS:
        drawn = pair_prompts("union", seed, words)
        assert {drawn.first, *drawn.second} == {"cat", "hat"}
        assert drawn.prompt.startswith(f"A photo of a {drawn.first} and a {drawn.second[0]}")
    with pytest.raises(ValueError, match="Expected two things or more for a union, got 1"):
        pair_prompts("union", 0, PairWords(("cat",)))


def test_other_kinds_have_no_pairs():
    with pytest.raises(ValueError, match="Expected one of texture, scene, union, got 'clothes'"):
        pair_prompts("clothes", 0)


@pytest.mark.parametrize("text, lines", [
    ("", ("ours",)), (" \n\n", ("ours",)), ("cat\n  big   dog \n\ncat", ("cat", "big dog")),
    # SAM3 would look for two kinds, and a text encoder weigh the first.
    ("(red:1.2) hat, cap", ("red 1.2 hat cap",)),
])
def test_lines_are_words_without_signs(text, lines):
    assert lines_of_words(text, ("ours",)) == lines


def test_lines_without_words_are_refused():
    with pytest.raises(ValueError, match="^Expected words on each line, got '---'"):
        lines_of_words("cat\n---", ())


def test_names_are_plain_and_short():
    drawn = pair_prompts("scene", 7, PairWords(("../" + "Größe " * 40,), ("on a 50% slope",)))
    assert drawn.names[0].startswith("Größe_Größe") and drawn.names[0].endswith("_7")
    assert len(drawn.names[0]) <= 62 and drawn.names[0].replace("_", "").isalnum()
