"""Wholes of parts of several creatures: where each part comes from, and what the pose tells."""

import random

import pytest

from pit.demo.drawing.creature import PARTS, sample_creature
from pit.demo.drawing.mixture import reshaped, slots_of, with_parts_of
from pit.demo.wholes import EVERYTHING, LABELS, sample_given, sample_reference, sample_whole

POOL = [sample_reference(random.Random(number)).creature for number in range(60)]
WHOLES = [sample_whole(random.Random(number), POOL) for number in range(200)]


def values(creature, part):
    return [creature.attributes[name] for name in slots_of(part)]


def test_every_part_is_that_of_the_creature_it_comes_from():
    for whole in WHOLES:
        creature = whole.target.creature
        assert list(whole.sources) == creature.parts
        for part, number in whole.sources.items():
            assert values(creature, part) == values(POOL[number], part)
        assert whole.entire == (len(set(whole.sources.values())) == 1)


def test_the_figure_differs_in_the_shapes_that_only_references_tell():
    for whole in WHOLES:
        creature, figure = whole.target.creature, whole.figure
        changed = {part for part in PARTS if creature.attributes[part] != figure.attributes[part]}
        assert changed == set(whole.reshaped) and figure.pose == creature.pose
    shares = [sum(map(bool, each)) / len(WHOLES) for each in (
        [whole.reshaped for whole in WHOLES], [whole.entire for whole in WHOLES],
    )]
    assert shares == pytest.approx([0.25, 0.2], abs=0.08)


def test_what_the_pose_does_not_tell_is_always_given():
    counts = set()
    for number, whole in enumerate(WHOLES):
        given = sample_given(whole, random.Random(number))
        counts.add(len(given))
        assert set(whole.reshaped) <= set(given) and set(given) <= {*whole.sources, EVERYTHING}
        assert len(set(given)) == len(given) >= 1
        if EVERYTHING in given:
            assert whole.entire and len(given) == 1
    assert {1, 2, 3, 5} <= counts


def test_a_part_brings_its_colors_and_small_variations_along():
    one, other = (sample_creature(random.Random(number), 0.0) for number in (1, 2))
    mixed = with_parts_of(one, {"body": other, "tail": other})
    for name in ("body", "pattern", "body_color", "tail", "tail_color"):
        assert mixed.attributes[name] == other.attributes[name]
    assert mixed.jitter["tail"] == other.jitter["tail"] and mixed.jitter["width"] == other.jitter["width"]
    assert mixed.jitter["arms"] == one.jitter["arms"] and mixed.attributes["eyes"] == one.attributes["eyes"]


def test_other_shapes_keep_their_colors():
    creature = sample_creature(random.Random(3), 0.0)
    other = reshaped(creature, ["wings", "eyes"], random.Random(0))
    differ = {name for name, value in creature.attributes.items() if other.attributes[name] != value}
    assert differ == {"wings", "eyes"}


def test_labels_are_words_that_the_text_encoder_knows():
    from pit.demo.models.words import WORDS

    assert set(LABELS) <= set(WORDS)
