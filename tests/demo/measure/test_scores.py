"""What is counted in pictures: attributes found, entropies, and distances against their closed forms."""

import math
import random
from dataclasses import replace

import pytest
import torch
from scipy.linalg import sqrtm

from pit.demo.drawing.creature import ATTRIBUTES, UNSEEN, creature_from_seed
from pit.demo.measure.scores import (
    BORDER,
    NAMES,
    border_distances,
    entropies,
    found_things,
    frechet_distance,
    is_whole,
    kept,
    kernel_distance,
    open_entropies,
    targets_of,
    visible,
)
from tests.demo.measure.readings import PAIRS
from tests.demo.measure.readings import reading_of as made_up

EMBER = creature_from_seed(0, 1.0, "ember")  # it has no ears


def reading_of(*creatures, whole=1.0):
    """What a perfect reader reads; it has to name some color for absent parts, too."""
    attributes = torch.stack([targets_of(creature) for creature in creatures]).clamp(min=0)
    return made_up(attributes, whole=torch.full((len(creatures),), whole))


def changed(creature, **attributes):
    return replace(creature, attributes=creature.attributes | attributes)


def normal(count, *, seed, width=6, shift=0.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_whole_creature_shows_all_but_the_colors_of_absent_parts():
    targets = dict(zip(ATTRIBUTES, targets_of(EMBER).tolist(), strict=True))
    assert [name for name, value in targets.items() if value == UNSEEN] == ["ears_color"]
    shown = {name: ATTRIBUTES[name][value] for name, value in targets.items() if value != UNSEEN}
    assert shown == {name: EMBER.attributes[name] for name in shown}


def test_parts_show_their_own_attributes():
    targets = targets_of(EMBER, ["wings", "eyes", "body"])
    shown = {name for name, value in zip(NAMES, targets.tolist(), strict=True) if value != UNSEEN}
    assert shown == {"wings", "wings_color", "eyes", "body", "body_color", "pattern"}
    assert torch.equal(targets[targets != UNSEEN], targets_of(EMBER)[targets != UNSEEN])


def test_colors_of_parts_read_as_absent_are_hidden():
    read = visible(reading_of(EMBER, changed(EMBER, ears="fin", tail="none")).attributes)
    hidden = [[NAMES[index] for index in (row == UNSEEN).nonzero().flatten()] for row in read]
    assert hidden == [["ears_color"], ["tail_color"]]


def test_kept_is_the_share_of_wanted_attributes_that_are_read():
    seen = reading_of(
        EMBER,
        changed(EMBER, wings_color="green"),
        EMBER,
        changed(EMBER, tail="fish", horns_color="green"),  # not asked for
    )
    seen.attributes[2, NAMES.index("wings")] = 0  # without wings their color, though right, does not count
    targets = targets_of(EMBER, ["wings", "eyes"]).expand(4, -1)
    assert kept(seen, targets).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 1])
    assert kept(seen, targets[0]).tolist() == kept(seen, targets).tolist()


def test_an_absent_part_may_be_wanted_absent():
    wanted = targets_of(EMBER)[None]
    assert kept(reading_of(EMBER), wanted).item() == 1
    assert kept(reading_of(changed(EMBER, ears="fin")), wanted).item() == pytest.approx(15 / 16)


def test_nothing_wanted_is_not_a_number():
    assert kept(reading_of(EMBER), torch.full((1, len(NAMES)), UNSEEN)).isnan().all()


def test_whole_is_what_the_reader_considers_more_likely():
    assert is_whole(reading_of(EMBER, whole=0.51)).all() and not is_whole(reading_of(EMBER, whole=0.5)).any()


def test_things_are_found_where_they_are_more_likely_than_not():
    things = torch.zeros(2, PAIRS)
    things[0, 3], things[1, 5] = 0.51, 0.5
    found = found_things(made_up(torch.zeros(2, len(NAMES)), things=things))
    assert found.nonzero().tolist() == [[0, 3]]


def test_borders_are_compared_with_white_and_nothing_else_is():
    pictures = torch.ones(2, 3, 64, 64)
    pictures[:, :, BORDER:-BORDER, BORDER:-BORDER] = 0
    pictures[1] -= 10 / 255 * (pictures[1] == 1)
    assert border_distances(pictures).tolist() == pytest.approx([0, 10], abs=1e-4)


def test_entropies_of_uniform_constant_and_uneven_columns():
    uniform, constant = torch.arange(32) % 8, torch.full((32,), 3)
    uneven = torch.where(torch.arange(32) < 8, UNSEEN, 1)  # an absent part is a value like any other
    found = entropies(torch.stack([uniform, constant, uneven], dim=1)).tolist()
    expected = [math.log(8), 0, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))]
    assert found == pytest.approx(expected)


def test_open_entropies_count_only_what_was_not_given():
    targets = targets_of(EMBER, ["wings"])
    same, free = open_entropies(reading_of(*[EMBER] * 32), targets, random.Random(0))
    assert same == 0 and free > 20
    mixtures = [creature_from_seed(seed, 0.0) for seed in range(32)]
    ours, theirs = open_entropies(reading_of(*mixtures), targets, random.Random(0))
    assert theirs == free and ours.item() == pytest.approx(free.item(), rel=0.05)


def test_the_frechet_distance_of_equal_sets_is_zero():
    features = normal(50, seed=0)
    assert frechet_distance(features, features.flip(0)) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_a_stretched_set_has_a_closed_form():
    features = normal(50, seed=1)
    moved = (features.double().mean(dim=0) + 3).square().sum() + torch.cov(features.double().T).trace()
    assert frechet_distance(features, 2 * features + 3) == pytest.approx(moved.item(), rel=1e-6)


def root_of_product(first, second):
    """The trace of the matrix root that the distance is defined with."""
    return sqrtm((torch.cov(first.T) @ torch.cov(second.T)).numpy()).real.trace()


def sum_of_singular_values(first, second):
    """The same number from the centered features, which needs no covariance of full rank."""
    x, y = ((each - each.mean(dim=0)) / (len(each) - 1) ** 0.5 for each in (first, second))
    return torch.linalg.svdvals(x @ y.T).sum().item()


@pytest.mark.parametrize(("count", "root"), [
    (80, root_of_product), (80, sum_of_singular_values), (5, sum_of_singular_values),
    (2, sum_of_singular_values),
])
def test_the_frechet_distance_follows_its_definition(count, root):
    first, second = normal(count, seed=3).double(), normal(90, seed=4, shift=0.4).double()
    second = second @ normal(6, seed=2).double()
    apart = (first.mean(dim=0) - second.mean(dim=0)).square().sum().item()
    traces = sum(torch.cov(features.T).trace().item() for features in (first, second))
    expected = apart + traces - 2 * root(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-5)


def naive_kernel_distance(first, second):
    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def average(pairs):
        values = [kernel(a, b) for a, b in pairs]
        return sum(values) / len(values)

    within = [[(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j] for x in (first, second)]
    across = [(a, b) for a in first for b in second]
    return sum(map(average, within)) - 2 * average(across)


def test_the_kernel_distance_is_the_sum_over_all_pairs():
    first, second = normal(7, seed=5).double(), normal(4, seed=6, shift=1.0).double()
    assert kernel_distance(first, second) == pytest.approx(naive_kernel_distance(first, second))
    assert kernel_distance(normal(200, seed=5), normal(200, seed=6, shift=1.0)) > 1


def test_the_kernel_distance_of_one_distribution_is_zero_on_average():
    draws = torch.tensor([
        kernel_distance(normal(20, seed=seed), normal(30, seed=1000 + seed)) for seed in range(200)
    ])
    assert draws.mean().abs() < 3 * draws.std() / 200**0.5
    assert (draws < 0).any()


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_one_picture_has_no_distribution(distance):
    for sizes in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="at least 2 pictures on either side of a distance, got 1"):
            distance(*(normal(size, seed=0) for size in sizes))
