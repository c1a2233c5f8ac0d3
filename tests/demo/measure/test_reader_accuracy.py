"""How often the reader is right: counted where there is anything to read, each question the same."""

import pytest
import torch

from pit.demo.drawing.composition import THING_LABEL
from pit.demo.drawing.creature import ATTRIBUTES
from pit.demo.measure.pictures import drawn_maps, fresh_pictures
from pit.demo.measure.reader import READ_KINDS, answers, has_creature, map_overlap, reader_accuracy
from pit.demo.measure.suite import Laboratory
from pit.demo.models.reader import MAP_SIZE
from pit.demo.training.truth import truth_of
from tests.demo.measure.readings import PAIRS, reading_of

COUNT = 3
A = len(ATTRIBUTES)


def pictures_of(kinds, purpose="reader"):
    return [picture for kind in kinds for picture in fresh_pictures(0, kind, COUNT, purpose)]


def perfect(pictures, **others):
    """What a perfect reader says of pictures."""
    truth = truth_of(pictures)
    usual = {
        "scenes": truth.scenes.clamp(min=0), "things": truth.things, "whole": has_creature(truth).float(),
        "maps": drawn_maps([picture.composition for picture in pictures], MAP_SIZE),
    }
    return reading_of(truth.labels.clamp(min=0), **usual | others)


class Knowing:
    """A reader that knows what it will be shown: first complete pictures, and then flawed ones."""

    def __init__(self, first, flawed):
        self.readings = [first, flawed]

    def read(self, pictures):
        reading = self.readings.pop(0)
        assert len(pictures) == len(reading.whole)
        return reading


def accuracy_of(first, flawed):
    return reader_accuracy(Laboratory(None, Knowing(first, flawed), 0), COUNT)


def test_a_perfect_reader_is_always_right():
    pictures = pictures_of(READ_KINDS)
    found = accuracy_of(perfect(pictures), perfect(pictures_of(READ_KINDS[:3]), whole=torch.zeros(3 * COUNT)))
    assert (found.average.value, found.maps.value) == (1, 1)
    assert {estimate.value for estimate in found.shares.values()} == {1}
    assert {"things", "no thing", "scene", "whole", "ears_color"} <= set(found.shares)
    assert found.shares["whole"].count == 6 * COUNT and found.shares["things"].count == 2 * COUNT


def test_a_reader_that_sees_things_everywhere_and_calls_all_complete_is_caught():
    pictures = pictures_of(READ_KINDS)
    seeing = perfect(pictures, things=torch.ones(len(pictures), PAIRS))
    found = accuracy_of(seeing, perfect(pictures_of(READ_KINDS[:3])))
    assert [found.shares[name].value for name in ("things", "no thing", "whole")] == [0, 0, 0.5]
    assert found.average.value == pytest.approx((A + 1) / (A + 2))  # one of the questions is always wrong


def test_answers_count_where_there_is_something_to_read():
    pictures = pictures_of(READ_KINDS)
    truth = truth_of(pictures)
    right, seen = answers(perfect(pictures), truth)
    assert right.shape == seen.shape == (len(pictures), A + 2)
    assert right[seen].all()
    assert not seen[-COUNT:, :A].any() and seen[-COUNT:, A].all()  # things alone
    assert not seen[:COUNT, A].any()  # creatures alone


def test_maps_overlap_by_the_pixels_of_all_pictures():
    true, found = torch.zeros(2, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, 2, dtype=torch.uint8)
    true[0, 0], found[0, 0, 0], found[1, 1] = THING_LABEL, THING_LABEL, THING_LABEL
    # Of things: 1 pixel in both, 2 + 2 in either; of the ground: 4 in both, 7 in either.
    assert map_overlap(found, true).value == pytest.approx((1 / 4 + 4 / 7) / 2)
