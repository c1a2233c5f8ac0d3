"""Pictures that the models are tested on: of the wanted kind, unseen, and with a truth that fits."""

from dataclasses import fields

import pytest

from pit.demo.drawing.composition import THING_LABEL
from pit.demo.drawing.creature import typical_attributes
from pit.demo.measure.pictures import batches, drawn, drawn_maps, fresh_pictures
from pit.demo.models.sizes import PICTURE_SIZE
from pit.demo.training.data import ALONE, EMPTY, KINDS, POSED, THINGS, WITH_THINGS
from pit.demo.training.truth import UNSEEN, picture_truth, truth_of


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_show_what_their_kind_says(kind):
    for picture in fresh_pictures(0, kind, 20, "test"):
        shown = picture.composition
        assert picture.kind == kind
        assert (shown.creature is None) == (kind in (THINGS, EMPTY))
        assert len(shown.things) in ((1, 2) if kind in (THINGS, WITH_THINGS) else (0,))


def test_only_posed_creatures_are_posed():
    posed = {}
    for kind in (ALONE, WITH_THINGS, POSED):
        pictures = fresh_pictures(0, kind, 9, "test")
        posed[kind] = sum(each.composition.creature.pose != each.creature.pose for each in pictures)
    assert posed == {ALONE: 0, WITH_THINGS: 0, POSED: 9}


def test_creatures_are_free_mixtures():
    followed = [
        picture.creature.attributes[name] == value
        for picture in fresh_pictures(0, ALONE, 200, "test")
        for name, value in typical_attributes(picture.creature.species).items()
    ]
    assert sum(followed) / len(followed) < 0.2


def test_the_same_arguments_draw_the_same_pictures_and_others_do_not():
    first = fresh_pictures(0, ALONE, 3, "a")
    assert fresh_pictures(0, ALONE, 5, "a")[:3] == first
    for other in (fresh_pictures(1, ALONE, 3, "a"), fresh_pictures(0, ALONE, 3, "b")):
        assert not any(picture in first for picture in other)


def test_the_truth_is_that_of_the_pictures():
    pictures = [picture for kind in KINDS for picture in fresh_pictures(3, kind, 8, "test")]
    truth = truth_of(pictures)
    for row, picture in enumerate(pictures):
        shown = picture.composition
        assert (truth.labels[row] == UNSEEN).all() == (shown.creature is None)
        assert (truth.scenes[row] == UNSEEN) == (shown.ground is not None)
        assert truth.things[row].sum() == len({(thing.kind, thing.color) for thing, _ in shown.things})
        assert KINDS[truth.kinds[row]] == picture.kind
    known = picture_truth(3, 2)
    assert all(getattr(truth, each.name).dtype == getattr(known, each.name).dtype for each in fields(known))


def test_maps_fit_the_pictures():
    shown = [picture.composition for picture in fresh_pictures(0, THINGS, 2, "test")]
    maps = drawn_maps(shown, 32)
    assert maps.shape == (2, 32, 32) and set(maps.unique().tolist()) == {0, THING_LABEL}
    assert [picture.size for picture in drawn(shown)] == [(PICTURE_SIZE, PICTURE_SIZE)] * 2


def test_batches_hold_every_item_once():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches(iter([]), 3)) == []
