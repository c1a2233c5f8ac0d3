"""What pictures tell of a direction: shrinkage, the length of an edit, and how well it separates."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pit.concepts.directions import (
    FARTHEST,
    METHODS,
    TOKEN_SPACE,
    find_direction,
    measured_direction,
    separation,
    shrunken_direction,
)

SHAPE = (16, 8)
LOUD = 8  # tokens whose pictures vary strongly; the others hardly vary
TRUE = torch.zeros(SHAPE)
TRUE[LOUD:] = 0.25


def classes(
    seed: int, count: int = 24, way: float = 1.0, loud: float = 3.0, quiet: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Two classes that differ by `way` times `TRUE`, which lies where pictures hardly vary."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.full((SHAPE[0], 1), quiet)
    spread[:LOUD] = loud
    a, b = (spread * torch.randn(count, *SHAPE, generator=generator) for _ in range(2))
    return a, b + way * TRUE


def cosine(found: Tensor, true: Tensor = TRUE) -> float:
    return torch.cosine_similarity(found.flatten().double(), true.flatten().double(), dim=0).item()


def naive_shrinkage(a: Tensor, b: Tensor) -> Tensor:
    """(I + (c / t) S)^-1 d, with S in full."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    difference = b.mean(dim=0) - a.mean(dim=0)
    within = torch.cat([a - a.mean(dim=0), b - b.mean(dim=0)])
    covariance = within.T @ within / (len(within) - 2)
    chance = 1 / len(a) + 1 / len(b)
    length = difference @ difference
    prior = torch.maximum(length - chance * covariance.trace(), 0.02 * length) / len(difference)
    identity = torch.eye(len(difference), dtype=torch.float64)
    return torch.linalg.solve(identity + chance / prior * covariance, difference)


# Shrinkage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("counts", [(2, 2), (3, 9), (24, 24)])
def test_shrinkage_is_the_dense_formula(counts, way):
    a, b = classes(1, way=way)
    a, b = a[:counts[0], :, :2], b[:counts[1], :, :2]
    expected = naive_shrinkage(a, b)
    error = (shrunken_direction(a, b).flatten().double() - expected).norm()
    assert error <= 1e-4 * expected.norm()
    assert (find_direction(a, b).flatten().double() - expected).norm() > 0.01 * expected.norm()


def test_shrinkage_takes_half_precision_as_the_same_numbers():
    a, b = (each.half() for each in classes(1))
    assert torch.equal(shrunken_direction(a, b), shrunken_direction(a.float(), b.float()))


@pytest.mark.parametrize("shape", [(16, 2048), (257, 1280)])
def test_shrinkage_manages_the_published_shapes(shape):
    """The class differs by one in every number, and all pictures vary likewise."""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(4, *shape, generator=generator) for _ in range(2))
    found = shrunken_direction(a, b + 1)
    assert found.shape == shape and found.dtype == torch.float32 and found.isfinite().all()
    assert cosine(found, torch.ones(shape)) > 0.7


def test_classes_without_variety_are_not_shrunk():
    a, b = torch.zeros(3, *SHAPE), TRUE.expand(4, *SHAPE)
    assert torch.equal(shrunken_direction(a, b), TRUE)


@pytest.mark.parametrize("seed", range(5))
def test_shrinkage_is_nearer_to_the_truth_than_the_difference_of_means(seed):
    a, b = classes(seed, way=3.0)
    assert cosine(shrunken_direction(a, b)) > cosine(find_direction(a, b)) + 0.1
    assert cosine(shrunken_direction(a, b)) > 0.75


@pytest.mark.parametrize("seed", range(5))
def test_shrinkage_separates_new_pictures_better(seed):
    a, b = classes(seed, way=3.0)
    new_a, new_b = (each.flatten(1) for each in classes(seed + 100, 500, way=3.0))
    middle = (1.5 * TRUE).flatten()
    right = []
    for find in (find_direction, shrunken_direction):
        along = find(a, b).flatten()
        sides = ((new_a - middle) @ along < 0), ((new_b - middle) @ along > 0)
        right.append(sum(side.double().mean().item() for side in sides) / 2)
    assert right[1] > right[0] + 0.07


def test_shrinkage_separates_the_left_out_pictures_better():
    def accuracy(find) -> float:
        return sum(separation(*classes(seed, way=3.0), find).accuracy for seed in range(10)) / 10

    assert accuracy(shrunken_direction) > accuracy(find_direction) + 0.03


# Separation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values())
def test_classes_far_apart_are_separated(method):
    found = separation(*classes(1, way=20.0), method)
    assert found.accuracy == 1.0
    assert (found.first < 0).all() and (found.second > 0).all()
    true_gap = 20.0 * TRUE.norm().item()
    assert found.gap == pytest.approx(true_gap, rel=0.1)


@pytest.mark.parametrize("method", METHODS.values())
def test_one_and_the_same_class_is_not_separated(method):
    accuracies = [separation(*classes(seed, 40, way=0.0), method).accuracy for seed in range(8)]
    assert sum(accuracies) / len(accuracies) == pytest.approx(0.5, abs=0.08)
    assert all(0.2 < accuracy < 0.8 for accuracy in accuracies)


def test_every_picture_is_left_out_once_and_places_lie_around_the_middle():
    a, b = classes(1, way=20.0)
    found = separation(a[:13], b[:7], find_direction)
    assert (len(found.first), len(found.second)) == (13, 7)
    middle = (found.first.mean() + found.second.mean()).item() / 2
    assert abs(middle) < 0.1 * found.gap
    assert len(separation(a[:2], b[:2], find_direction).first) == 2


def test_a_picture_has_no_say_in_its_own_place():
    """The direction for the first fold is found without picture 1, wherever that lies."""
    a, b = classes(1)
    moved = a.clone()
    moved[0] = 50.0
    kept_a, kept_b = (each[torch.arange(24) % 5 != 0] for each in (a, b))
    along = find_direction(kept_a, kept_b).flatten().double()
    along /= along.norm()
    for pictures in (a, moved):
        first = separation(pictures, b, find_direction).first  # the first fold's places come first
        apart = ((pictures[0] - pictures[5]).flatten().double() @ along).item()
        assert (first[0] - first[1]).item() == pytest.approx(apart, rel=1e-4)


@pytest.mark.parametrize("pictures, near", [(8, 0.3), (24, 0.15), (200, 0.1)])
def test_the_deviation_is_the_spread_of_the_pictures_along_the_direction(pictures, near):
    """All dimensions vary alike, so that every direction has the same, from few pictures as from many."""
    found = separation(*classes(2, pictures, way=4.0, loud=2.0, quiet=2.0), shrunken_direction)
    assert found.deviation == pytest.approx(2.0, rel=near)


def test_classes_of_different_sizes_lie_on_both_sides_of_the_middle():
    a, b = classes(3, 64, way=8.0)
    found = separation(a, b[:8], shrunken_direction)
    assert found.first.mean() == pytest.approx(-found.second.mean().item()) and found.accuracy > 0.9


# Measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [2.0, 5.0])
def test_an_amount_of_one_leads_from_one_class_to_the_other(way):
    ways = []
    for seed in range(8):
        found, _ = measured_direction(*classes(seed, 64, way), "shrinkage", TOKEN_SPACE, "a test")
        ways.append((found.values * TRUE).sum() / TRUE.square().sum() / way)
    assert torch.stack(ways).mean().item() == pytest.approx(1.0, abs=0.15)
    assert min(ways) > 0.7 and max(ways) < 1.3


def test_of_the_difference_of_means_an_amount_of_one_is_the_difference():
    a, b = classes(1)
    found, _ = measured_direction(a, b, "difference of means", TOKEN_SPACE, "a test")
    assert torch.equal(found.values, find_direction(a, b))


@pytest.mark.parametrize("method", METHODS)
def test_the_amounts_are_in_units_of_the_direction(method):
    a, b = classes(1, way=4.0)
    found, separated = measured_direction(a, b, method, TOKEN_SPACE, "a test")
    length = found.values.double().norm().item()
    assert found.deviation * length == pytest.approx(separated.deviation, rel=1e-5)
    way = found.recommended * length
    assert separated.gap * (1 - 1e-5) <= way <= FARTHEST * separated.gap
    assert 0.5 < found.recommended < 3.0


@pytest.mark.parametrize("method", METHODS)
def test_the_recommended_amount_brings_most_pictures_over(method):
    a, b = classes(1, 64, way=4.0)
    found, _ = measured_direction(a, b, method, TOKEN_SPACE, "a test")
    along, middle = TRUE.flatten(), 2.0 * TRUE.square().sum()
    new_a = classes(101, 500, way=4.0)[0]
    moved = new_a + found.recommended * found.values
    before, after = ((each.flatten(1) @ along > middle).double().mean() for each in (new_a, moved))
    assert before < 0.05 and after > 0.95


def test_a_direction_of_chance_goes_no_farther_than_the_pictures_lie_apart():
    found, separated = measured_direction(*classes(1, 8, way=0.0), "shrinkage", TOKEN_SPACE, "a test")
    assert found.values.norm().item() <= FARTHEST * abs(separated.gap) * (1 + 1e-5)
    assert found.deviation > 0 and found.recommended == pytest.approx(1.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_direction_says_what_it_was_made_of(method):
    a, b = classes(1)
    found, separated = measured_direction(a[:10], b, method, TOKEN_SPACE, "a test", "c" * 16)
    assert (found.space, found.source, found.adapter) == (TOKEN_SPACE, "a test", "c" * 16)
    assert found.notes == {
        "method": method, "pictures": "10 and 24", "separation": f"{separated.accuracy:.4f}",
    }


@pytest.mark.parametrize("method", METHODS)
def test_the_same_pictures_give_the_same_direction_whatever_the_seed(method):
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        runs.append(measured_direction(*classes(1), method, TOKEN_SPACE, "a test"))
    (first, first_separated), (second, second_separated) = runs
    assert torch.equal(first.values, second.values)
    assert (first.deviation, first.recommended) == (second.deviation, second.recommended)
    assert torch.equal(first_separated.first, second_separated.first)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts, message", [
    ((0, 5), "at least 2 of each .* got no picture in the first"),
    ((5, 0), "at least 2 of each .* got no picture in the second"),
    ((1, 5), "at least 2 of each .* got one picture in the first"),
    ((5, 1), "at least 2 of each .* got one picture in the second"),
])
def test_too_few_pictures_are_refused(method, counts, message):
    a, b = classes(1)
    with pytest.raises(ValueError, match=message):
        measured_direction(a[:counts[0]], b[:counts[1]], method, TOKEN_SPACE, "a test")
    with pytest.raises(ValueError, match=message):
        separation(a[:counts[0]], b[:counts[1]], METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_pictures_that_were_encoded_differently_are_refused(method):
    a, b = classes(1)
    with pytest.raises(ValueError, match=r"of one shape, got \[16, 8\] and \[16, 6\]"):
        measured_direction(a, b[..., :6], method, TOKEN_SPACE, "a test")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [0, 1, 2, 0, 1, 2], [1, 0, 2, 1, 2, 0]])
def test_the_same_pictures_in_both_classes_are_refused(method, order):
    a = classes(1)[0][:3]
    with pytest.raises(ValueError, match="got the same pictures in both"):
        measured_direction(a, a[order], method, TOKEN_SPACE, "a test")


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_share_a_picture_give_a_direction(method):
    """The pictures that are left out lie in one place, and tell nothing of the way."""
    a = classes(1)[0]
    found, separated = measured_direction(a[:2], a[[0, 2]], method, TOKEN_SPACE, "a test")
    assert separated.gap == 0
    assert found.values.norm() > 0 and found.values.isfinite().all()
    assert found.recommended == pytest.approx(1.0)
