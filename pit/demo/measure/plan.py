"""How many samples a run uses."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from . import GROUPS
from .baselines import rivals
from .suite import DIVERSE_SEEDS, WHITES
from .trials import COHERENCE

PART_COUNTS = (1, 2, 3, 5)
SCENE_WEIGHTS = (1.0, 0.7, 0.4)


@dataclass(frozen=True)
class Plan:
    """How many samples a run uses.

    Attributes:
        fresh: pictures of each kind on which the reader is tested.
        decoded: pictures of each kind that go through the autoencoder.
        grounds: pictures on each ground that go through it.
        fitted: creatures from which a linear layer learns to read embeddings.
        tested: creatures on which it is tested.
        trials: creatures for each setting.
        sets: sets of parts, each completed with 32 seeds.
        known: training creatures among which the nearest one is searched.
        compared: numbers of given parts with which the prior is compared to other methods.
    """

    fresh: int
    decoded: int
    grounds: int
    fitted: int
    tested: int
    trials: int
    sets: int
    known: int
    compared: tuple[int, ...]

    def pictures(self, groups: Collection[str] = GROUPS) -> int:
        """How many pictures these groups of measures render in all."""
        rendered: dict[str, int] = {}
        for group in groups:
            rendered |= self._rendered(group)  # what two groups share is rendered once
        return sum(rendered.values())

    def _rendered(self, group: str) -> dict[str, int]:
        """How many pictures a group renders, by what they show."""
        ceiling = {"ceiling free": self.trials}
        if group == "embedding":
            return ceiling | {"embedding": self.trials, "tokens on white": self.trials}
        if group == "kept":
            kept = {f"{parts} {name}": self.trials for parts in PART_COUNTS for name in COHERENCE}
            whites = {"whites": min(WHITES, self.trials)}
            return ceiling | {"ceiling natural": self.trials} | kept | whites
        if group == "methods":
            prior = {f"{parts} free": self.trials for parts in self.compared}
            return prior | {"methods": self.trials * len(rivals(1)) * len(self.compared)}
        others = {
            "diverse": self.sets * DIVERSE_SEEDS, "scenes": self.trials * len(SCENE_WEIGHTS),
            "words": 2 * self.trials,
        }
        return {group: others.get(group, 0)}


# From 128 creatures, shares are known to about 2 points; 30 are just enough for an interval (`FEW`).
FULL = Plan(
    fresh=400, decoded=128, grounds=30, fitted=4000, tested=1000, trials=128, sets=32, known=8000,
    compared=(2, 5),
)
QUICK = Plan(
    fresh=80, decoded=30, grounds=6, fitted=2000, tested=300, trials=30, sets=3, known=800, compared=(2,),
)
