"""Numbers with their 95% confidence intervals."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

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
    return Estimate(p, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale), count)


def mean(values: Tensor) -> Estimate:
    """The mean of `[N]`, with the percentile bootstrap interval (Efron 1979); repeatable.

    Raises:
        ValueError: there are no values.
    """
    return ratio(values, values.new_ones(len(values)))


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """The sum of `above` over the sum of `below > 0`, both `[N]`; pairs are resampled together, as in `mean`.

    Raises:
        ValueError: there are no values.
    """
    count = _count(above)
    pairs = np.stack([above.double().numpy(), below.double().numpy()])
    # A fixed seed: the same values always have the same interval.
    rows = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    sums = pairs[:, rows].sum(axis=2)
    low, high = np.percentile(sums[0] / sums[1], [2.5, 97.5])
    return Estimate(float(pairs[0].sum() / pairs[1].sum()), float(low), float(high), count)


def percent(estimate: Estimate) -> str:
    """A share and its 95% interval as text, with a note if there are too few samples."""
    samples = "sample" if estimate.count == 1 else "samples"
    note = f", only {estimate.count} {samples}" if estimate.is_scant else ""
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}{note})"


def _count(values: Tensor) -> int:
    if len(values) == 0:
        raise ValueError("Expected at least one sample to measure, got none.")
    return len(values)
