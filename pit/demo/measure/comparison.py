"""The recommended prior beside every other way from parts to tokens."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..models.reader import Reading
from .baselines import rivals
from .estimates import Estimate, mean, share
from .scores import is_whole, kept
from .suite import Laboratory, completed
from .trials import FREE, all_targets


@dataclass(frozen=True)
class Comparison:
    """One way from parts to tokens, measured.

    Attributes:
        both: share of the attributes found; pictures that show no complete creature count as 0.
        lead: by how much the recommended prior is ahead in `both`; None for that prior itself.
    """

    method: str
    parts: int
    kept: Estimate
    whole: Estimate
    both: Estimate
    lead: Estimate | None


def compare_methods(lab: Laboratory, count: int, known: int, parts: int) -> list[Comparison]:
    """The recommended prior, and then every other method, on `count` trials.

    Args:
        known: training creatures among which the nearest one is searched.
        parts: how many are given.
    """
    trials, prior = completed(lab, count, parts, FREE)
    targets, captions = all_targets(trials), [trial.caption for trial in trials]
    # Compared creature by creature: paired differences have narrower intervals than those of two means.
    ours = kept(prior, targets) * is_whole(prior)
    rows = [compared("prior, recommended", parts, prior, targets, None)]
    for name, method in rivals(known).items():
        reading = lab.render(method(lab, trials), captions)
        rows.append(compared(name, parts, reading, targets, ours))
    return rows


def compared(
    name: str, parts: int, reading: Reading, targets: Tensor, ours: Tensor | None
) -> Comparison:
    """One row of the comparison; `ours` is what the prior achieved in each picture."""
    shares, whole = kept(reading, targets), is_whole(reading)
    lead = None if ours is None else mean(ours - shares * whole)
    return Comparison(name, parts, mean(shares), share(whole), mean(shares * whole), lead)
