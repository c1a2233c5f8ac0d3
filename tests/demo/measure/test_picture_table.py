"""The measures of one set of pictures: counted right, and said in words."""

import random
import re

import numpy as np
import pytest
import torch

from pit.demo.drawing.creature import ATTRIBUTES, SCENES, creature_from_seed, sample_creature
from pit.demo.measure.picture_table import measured_rows
from pit.demo.measure.scores import NAMES, joined, open_entropies, targets_of
from pit.demo.measure.trials import Trial
from tests.demo.measure.readings import reading_of

CREATURE = creature_from_seed(7, 0.0)  # it has every part
TRIAL = Trial(CREATURE, ("body", "wings"))
GIVEN = ["body", "body color", "pattern", "wings", "wings color"]


def truth(creature):
    """What a perfect reader says, `[A]`."""
    return targets_of(creature).clamp(min=0)


def exact(count, **others):
    return reading_of(truth(CREATURE).repeat(count, 1), **others)


def table(read, scene=None, trial=TRIAL):
    """Values by the label up to the colon."""
    return {row.label.split(":")[0]: row.value for row in measured_rows(read, trial, scene)}


def spoil(read, name, pictures, option=None):
    """The first pictures show another option of an attribute."""
    column, options = NAMES.index(name), ATTRIBUTES[name]
    right = int(read.attributes[0, column])
    shown = (right + 1) % len(options) if option is None else options.index(option)
    read.attributes[:pictures, column] = shown
    return read


def test_true_pictures_show_every_attribute_of_the_given_parts_and_no_other_row():
    rows = measured_rows(exact(8), TRIAL, None)
    labels = [f"{name}: {CREATURE.attributes[name.replace(' ', '_')]}" for name in GIVEN]
    others = ["kept, on average", "whole creatures", "variety of the rest"]
    assert [row.label for row in rows] == labels + others
    assert [(row.value, row.share) for row in rows[:5]] == [("8 of 8", 1.0)] * 5
    assert rows[5].share == 1.0


def test_a_wrong_attribute_lowers_its_row_and_the_average():
    values = table(spoil(exact(10), "pattern", 4))
    assert [values[name] for name in GIVEN] == ["10 of 10", "10 of 10", "6 of 10", "10 of 10", "10 of 10"]
    assert values["kept, on average"].startswith("92.0% (")


def test_an_attribute_that_was_not_given_changes_no_row_of_the_parts():
    assert table(spoil(exact(10), "tail", 10))["kept, on average"].startswith("100.0%")


def test_a_color_counts_only_where_its_part_is_seen():
    values = table(spoil(exact(10), "wings", 3, "none"))
    assert (values["wings"], values["wings color"]) == ("7 of 10", "7 of 10")


def test_whole_creatures_and_the_scene_are_counted():
    night, lava = SCENES.index("night"), SCENES.index("lava")
    read = exact(4, whole=[0.9, 0.6, 0.4, 0.1], scenes=[night, lava, night, night])
    values = table(read, "night")
    assert (values["whole creatures"], values["scene"]) == ("2 of 4", "3 of 4")
    assert "scene" not in table(read)


@pytest.mark.parametrize(("count", "note"), [(1, "only 1 sample)"), (29, "only 29 samples)")])
def test_few_pictures_are_said_to_be_few(count, note):
    assert table(exact(count))["kept, on average"].endswith(note)


def test_thirty_pictures_are_enough():
    assert "only" not in table(exact(30))["kept, on average"]


def mixtures(count):
    rng = random.Random(5)
    return reading_of(torch.stack([truth(sample_creature(rng, 0.0)) for _ in range(count)]))


def test_variety_is_none_among_equals_and_full_among_free_mixtures():
    assert table(exact(32))["variety of the rest"] == "0.0% of free mixtures"
    assert 0.95 < measured_rows(mixtures(32), TRIAL, None)[-1].share < 1.05


def test_variety_leaves_the_given_parts_out():
    read = exact(32)
    read.attributes[:] = mixtures(32).attributes
    varied = measured_rows(read, TRIAL, None)[-1].share
    read.attributes[:, NAMES.index("body")] = 0
    assert measured_rows(read, TRIAL, None)[-1].share == varied
    read.attributes[:, NAMES.index("tail")] = 1
    assert measured_rows(read, TRIAL, None)[-1].share < varied


@pytest.mark.parametrize("read, parts", [(exact(1), TRIAL.parts), (mixtures(32), CREATURE.parts)])
def test_where_nothing_can_vary_the_table_says_so(read, parts):
    row = measured_rows(read, Trial(CREATURE, tuple(parts)), None)[-1]
    assert row == ("variety of the rest", "needs several pictures, and parts left open", None)


def test_entropy_is_that_of_the_counts():
    """Half of the pictures with another tail: one bit more, in nats."""
    read = spoil(exact(8), "tail", 4)
    drawn, free = open_entropies(read, TRIAL.targets, random.Random(0))
    assert drawn == pytest.approx(np.log(2))
    assert free > 10 * drawn


def test_readings_are_joined_in_order():
    both = joined([exact(2, whole=[0.1, 0.2]), exact(1, whole=[0.3])])
    assert both.attributes.shape == (3, len(NAMES))
    assert both.whole.tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(("read", "scene", "message"), [
    (exact(2), "moon", "Expected one of the scenes white, sky, night"),
    (exact(0), None, "at least one sample to measure, got none"),
])
def test_bad_input_is_named(read, scene, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        measured_rows(read, TRIAL, scene)
