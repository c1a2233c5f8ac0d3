"""Numbers with their 95% confidence intervals."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .units import SHARE, Unit

FEW = 30  # samples, below which an interval is marked
Z = 1.96  # standard deviations on either side that hold 95% of a normal distribution
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        low, high: bounds of its 95% confidence interval.
        count: of independent samples behind it.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def is_scant(self) -> bool:
        """Too few samples for the interval to mean much."""
        return self.count < FEW


def share(yes: Tensor) -> Estimate:
    """The share of true values in `[N]`, with Wilson's score interval (Wilson 1927).

    Raises:
        ValueError: there are no values.
    """
    count = _count(yes)
    # Unlike p +- Z * deviation, this interval stays within 0..1 and keeps its width where p is 0 or 1.
    p = yes.float().mean().item()
    middle, spread = p + Z**2 / (2 * count), Z * math.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    # Rounding must not put p outside, where it is 0 or 1.
    low, high = min(p, max(0.0, (middle - spread) / scale)), max(p, min(1.0, (middle + spread) / scale))
    return Estimate(p, low, high, count)


def column_shares(yes: Tensor, counted: Tensor, names: Sequence[str]) -> dict[str, Estimate]:
    """The share of true values in each column of `[N, K]`, by its name.

    Args:
        counted: which values count, bool `[N, K]`; a column without any is left out.
    """
    columns = zip(names, yes.T, counted.T, strict=True)
    return {name: share(column[counts]) for name, column, counts in columns if counts.any()}


def mean(values: Tensor) -> Estimate:
    """The mean of `[N]`, with the percentile bootstrap interval (Efron 1979); repeatable.

    Raises:
        ValueError: there are no values.
    """
    return ratio(values, values.new_ones(len(values)))


def mean_share(shares: Tensor) -> Estimate:
    """The mean of `[N]` in 0..1; errors as in `mean`.

    As `share` where all are 0 or all are 1: resampling would tell of no chance at all.
    """
    alike = (shares == 0).all() or (shares == 1).all()
    return share(shares == 1) if alike else mean(shares)


def pooled_share(yes: Tensor, counted: Tensor) -> Estimate:
    """The share of true values among those of `[N, K]` that count; whole rows are resampled, as in `ratio`.

    As `mean_share` where all are alike.
    """
    alike = yes[counted].all() or not yes[counted].any()
    return share(yes[counted][:1].expand(len(yes))) if alike else ratio(
        (yes & counted).sum(dim=1), counted.sum(dim=1)
    )


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """The sum of `above` over the sum of `below >= 0`, both `[N]`; rows are resampled together, as in `mean`.

    Of `[N, K]`, the mean of the K ratios of sums, without those that have nothing below.

    Raises:
        ValueError: there are no values.
    """
    count = _count(above)
    values = np.stack([each.double().reshape(count, -1).numpy() for each in (above, below)])
    # A fixed seed: the same values always have the same interval.
    rows = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    # How often each row was drawn: to repeat the rows themselves would take much memory.
    drawn = np.stack([np.bincount(row, minlength=count) for row in rows]).astype(float)
    low, high = np.nanpercentile(_mean_ratio(*(drawn @ values)), [2.5, 97.5])
    return Estimate(float(_mean_ratio(*values.sum(axis=1))), float(low), float(high), count)


def written(estimate: Estimate, unit: Unit) -> str:
    """A number and its 95% interval as text, with a note if there are too few samples."""
    samples = "sample" if estimate.count == 1 else "samples"
    note = f", only {estimate.count} {samples}" if estimate.is_scant else ""
    return f"{unit.text(estimate.value)} ({unit.text(estimate.low)} to {unit.text(estimate.high)}{note})"


def percent(estimate: Estimate) -> str:
    """A share and its 95% interval as text; see `written`."""
    return written(estimate, SHARE)


def _mean_ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The mean over the last axis of above / below, where there is anything below."""
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    with np.errstate(invalid="ignore"):  # not a number, if there is nothing below at all
        return ratios.sum(axis=-1) / there.sum(axis=-1)


def _count(values: Tensor) -> int:
    if len(values) == 0:
        raise ValueError("Expected at least one sample to measure, got none.")
    return len(values)
