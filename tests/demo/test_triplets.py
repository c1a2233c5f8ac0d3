"""Triplets: what is new in the target, and where it is."""

import random

import numpy as np
import pytest

from pit.demo.drawing.composition import THING_LABEL, draw_composition, draw_map
from pit.demo.models.sizes import PICTURE_SIZE
from pit.demo.triplets import KINDS, box_of, object_picture, sample_insertion


def drawn(count, **settings):
    return [sample_insertion(random.Random(number), **settings) for number in range(count)]


def pixels(composition):
    return np.asarray(draw_composition(composition, PICTURE_SIZE)).astype(int)


def test_kinds_of_triplets_come_as_often_as_they_should():
    found = drawn(2000)
    assert sum(kind.share for kind in KINDS) == pytest.approx(1)
    with_creature = [each for each in found if each.target.creature]
    assert len(with_creature) / 2000 == pytest.approx(0.85, abs=0.03)
    assert sum(len(each.scene.things) == 1 for each in found) / 2000 == pytest.approx(0.25, abs=0.03)
    assert all(each.target.creature for each in drawn(200, beside_creatures=True))


def test_a_scene_is_the_target_without_the_new_thing_and_nothing_else_changes():
    for insertion in drawn(12):
        changed = np.abs(pixels(insertion.scene) - pixels(insertion.target)).sum(axis=2) > 0
        mask = draw_map(insertion.target, PICTURE_SIZE) == THING_LABEL + insertion.number
        left, top, right, bottom = box_of(insertion, 0.3)  # with the shadow
        assert changed[mask].mean() > 0.9
        changed[top:bottom, left:right] = False
        assert not changed.any()


def test_the_box_of_a_thing_is_where_it_is_drawn():
    for insertion in drawn(30):
        mask = draw_map(insertion.target, PICTURE_SIZE) == THING_LABEL + insertion.number
        rows, columns = np.nonzero(mask)
        found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.subtract(found, box_of(insertion))).max() <= 6  # its outline


def test_no_two_things_of_a_picture_are_of_the_same_kind_and_color():
    for insertion in drawn(300):
        pairs = [(thing.kind, thing.color) for thing, _ in insertion.target.things]
        assert len(set(pairs)) == len(pairs)


def test_an_object_is_shown_alone_on_white_or_as_a_crop_of_the_target():
    crops = 0
    for number, insertion in enumerate(drawn(40)):
        target = draw_composition(insertion.target, PICTURE_SIZE)
        shown = object_picture(insertion, target, random.Random(number))
        assert shown.mode == "RGB" and min(shown.size) >= 8
        crops += shown.size != (PICTURE_SIZE, PICTURE_SIZE)
        if shown.size == (PICTURE_SIZE, PICTURE_SIZE):
            assert (np.asarray(shown) == 255).all(axis=2).mean() > 0.2
    assert 5 < crops < 30
