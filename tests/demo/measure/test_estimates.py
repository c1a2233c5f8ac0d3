"""Numbers with their intervals: Wilson's for shares, the bootstrap's for means and ratios."""

import pytest
import torch
from scipy.stats import binomtest

from pit.demo.measure.estimates import (
    FEW,
    Estimate,
    column_shares,
    mean,
    mean_share,
    percent,
    pooled_share,
    ratio,
    share,
    written,
)
from pit.demo.measure.units import DECIBELS


def yes_of(right, count):
    return torch.arange(count) < right


@pytest.mark.parametrize(("right", "count", "low", "high"), [
    (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662),
])
def test_a_share_has_the_published_wilson_interval(right, count, low, high):
    """The last case is the example of Newcombe 1998, table I."""
    estimate = share(yes_of(right, count))
    assert (estimate.value, estimate.count) == (pytest.approx(right / count), count)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("count", [1, 7, 32, 2000])
def test_wilson_intervals_agree_with_scipy(count):
    for right in {0, 1, count // 3, count // 2, count}:
        expected = binomtest(right, count).proportion_ci(method="wilson")
        found = share(yes_of(right, count))
        assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-4),
                                           pytest.approx(expected.high, abs=1e-4))


def test_the_bootstrap_interval_of_a_mean_covers_it_about_95_times_in_100():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(200, 60, generator=generator).square()  # skewed, with mean 1/3
    covered = sum(estimate.low <= 1 / 3 <= estimate.high for estimate in map(mean, draws))
    assert 180 <= covered <= 198


def test_the_bootstrap_interval_of_a_ratio_covers_it_about_95_times_in_100():
    generator = torch.Generator().manual_seed(1)
    below = 1 + torch.rand(200, 60, generator=generator)
    above = 0.7 * below + 0.3 * torch.randn(200, 60, generator=generator)
    found = [ratio(*pair) for pair in zip(above, below, strict=True)]
    assert 180 <= sum(estimate.low <= 0.7 <= estimate.high for estimate in found) <= 198


def test_the_interval_of_a_mean_has_the_width_of_the_normal_one():
    values = torch.randn(400, generator=torch.Generator().manual_seed(2))
    estimate = mean(values)
    assert estimate.value == pytest.approx(values.mean().item(), abs=1e-6)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std().item() / 20, rel=0.1)


def test_a_ratio_is_that_of_the_sums_and_its_pairs_stay_together():
    assert ratio(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 9.0])).value == pytest.approx(0.4)
    below = torch.rand(50, generator=torch.Generator().manual_seed(3)) + 0.1
    tied = ratio(2 * below, below)
    assert (tied.value, tied.low, tied.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))


def test_a_ratio_of_columns_is_the_mean_of_their_ratios():
    above = torch.tensor([[1.0, 0, 0], [1, 2, 0]])
    below = torch.tensor([[1.0, 4, 0], [3, 4, 0]])
    assert ratio(above, below).value == pytest.approx((2 / 4 + 2 / 8) / 2)  # nothing is below in the third


def test_the_interval_of_columns_is_that_of_resampled_rows():
    below = torch.rand(50, generator=torch.Generator().manual_seed(5)) + 0.1
    above = below * torch.rand(50, generator=torch.Generator().manual_seed(6))
    one, twice = ratio(above, below), ratio(above[:, None].repeat(1, 2), below[:, None].repeat(1, 2))
    assert (twice.low, twice.high, twice.count) == (pytest.approx(one.low), pytest.approx(one.high), 50)


def test_columns_are_counted_where_they_count():
    yes = torch.tensor([[True, True, True], [True, False, True]])
    counted = torch.tensor([[True, True, False], [True, True, False]])
    found = column_shares(yes, counted, ["all", "half", "none"])
    assert {name: (estimate.value, estimate.count) for name, estimate in found.items()} == {
        "all": (1.0, 2), "half": (0.5, 2),
    }


def test_the_same_values_have_the_same_interval():
    values = torch.rand(40, generator=torch.Generator().manual_seed(4))
    assert mean(values) == mean(values.clone())


def test_too_few_samples_are_named():
    plenty, few, one = (Estimate(0.5, 0.25, 0.75, count) for count in (FEW, FEW - 1, 1))
    assert [estimate.is_scant for estimate in (plenty, few, one)] == [False, True, True]
    assert percent(plenty) == "50.0% (25.0% to 75.0%)"
    assert percent(few) == "50.0% (25.0% to 75.0%, only 29 samples)"
    assert written(few, DECIBELS) == "0.5 dB (0.2 dB to 0.8 dB, only 29 samples)"
    assert percent(one) == "50.0% (25.0% to 75.0%, only 1 sample)"


@pytest.mark.parametrize("measure", [share, mean, lambda none: ratio(none, none)])
def test_nothing_to_measure_is_an_error(measure):
    with pytest.raises(ValueError, match="at least one sample to measure, got none"):
        measure(torch.tensor([]))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_all_is_alike_an_interval_of_shares_is_that_of_a_share(value):
    expected = share(torch.full((40,), bool(value)))
    assert mean_share(torch.full((40,), value)) == expected and expected.low < expected.high
    yes, counted = torch.full((40, 3), bool(value)), torch.ones(40, 3, dtype=torch.bool)
    counted[:, 2] = False
    assert pooled_share(yes, counted) == expected
    assert mean_share(torch.tensor([0.0, 0.5, 1.0])) == mean(torch.tensor([0.0, 0.5, 1.0]))


def test_a_pooled_share_counts_what_counts():
    yes = torch.tensor([[True, True], [False, True], [True, False]])
    counted = torch.tensor([[True, False], [True, True], [True, True]])
    found = pooled_share(yes, counted)
    assert found.value == pytest.approx(3 / 5) and found.low < found.value < found.high and found.count == 3
