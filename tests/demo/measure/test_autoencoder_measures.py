"""What is measured of the autoencoder, with made-up ones whose errors are known."""

import pytest
import torch

from pit.demo.measure.autoencoder import (
    GROUNDS,
    MIXED,
    PLAIN,
    composed,
    fidelity,
    ground_shift,
    signal_to_noise,
    white_distance,
)
from pit.demo.measure.pictures import fresh_pictures
from pit.demo.measure.suite import Laboratory
from pit.demo.models.reader import as_pictures
from pit.demo.training.data import ALONE, KINDS
from pit.demo.training.truth import truth_of
from tests.demo.measure.readings import reading_of


class Shifting:
    """An autoencoder that adds the same color to all pixels, in levels of 255."""

    def __init__(self, *color):
        self.color = torch.tensor(color).float()[:, None, None] / 255

    def reconstruct(self, pictures):
        return as_pictures(pictures) + self.color


class Knowing:
    """A reader that knows the attributes of the creatures alone."""

    def read(self, pictures):
        labels = truth_of(fresh_pictures(0, ALONE, len(pictures), "autoencoder")).labels
        return reading_of(labels.clamp(min=0))


def lab_of(*color):
    return Laboratory(Shifting(*color), Knowing(), 0)


def test_the_ratio_of_a_known_error_is_known():
    true = torch.zeros(2, 3, 4, 4)
    ours = torch.stack([torch.full((3, 4, 4), 0.1), torch.zeros(3, 4, 4)])
    decibels = signal_to_noise(ours, true)
    assert decibels[0] == pytest.approx(20, abs=1e-4) and decibels[1] == pytest.approx(100)


def test_every_kind_is_measured_and_attributes_are_read_where_creatures_are_alone():
    found = fidelity(lab_of(25.5, 25.5, 25.5), 2)
    assert list(found.decibels) == list(KINDS)
    assert all(estimate.value == pytest.approx(20, abs=1e-3) for estimate in found.decibels.values())
    assert found.average.value == 1 and found.average.count == 2
    assert all(estimate.value == 1 for estimate in found.shares.values())


def test_white_grounds_are_as_far_from_white_as_the_mean_of_their_channels():
    assert white_distance(lab_of(0, 0, 0), 2).value == pytest.approx(0, abs=1e-3)
    assert white_distance(lab_of(-3, 0, -9), 2).value == pytest.approx(4, abs=1e-3)


@pytest.mark.parametrize("ground", ["night", "white", MIXED, PLAIN])
def test_the_colors_of_grounds_are_off_by_the_length_of_their_shift(ground):
    assert ground_shift(lab_of(3, -4, 0), ground, 2).value == pytest.approx(5, abs=1e-3)


def test_a_change_of_the_creature_is_none_of_the_ground():
    class Blackening(Shifting):
        def reconstruct(self, pictures):
            drawn = as_pictures(pictures)
            return drawn * (drawn == 1).all(dim=1, keepdim=True)  # all but white turns black

    assert white_distance(Laboratory(Blackening(0, 0, 0), None, 0), 2).value == 0


def test_grounds_are_drawn_as_they_are_called():
    lab = lab_of(0, 0, 0)
    assert {composition.scene for composition in composed(lab, "lava", 3)} == {"lava"}
    assert all("_" in composition.scene for composition in composed(lab, MIXED, 3))
    assert len({composition.ground for composition in composed(lab, PLAIN, 3)}) == 3
    assert len(GROUNDS) == 15 and all(each.creature for each in composed(lab, "white", 2))
