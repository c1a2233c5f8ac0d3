"""Which samples of a set are held out to validate on."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HELD_OUT_SHARE = 0.02
HELD_OUT_MOST = 256  # validation is to take a small share of the training, however large the set
HELD_OUT_FROM = 50  # the smallest set of which the share is one


@dataclass(frozen=True)
class Split:
    """Numbers of the samples to train on, and of those held out to validate."""

    training: Tensor
    held_out: Tensor

    @property
    def validated(self) -> Tensor:
        """What to validate on."""
        # A set too small to hold any out is validated on itself: the loss then shows how well it is learned,
        # not how well the model generalizes. `about` says so.
        return self.held_out if len(self.held_out) else self.training

    def about(self, what: str) -> str:
        """How many there are to train on and to validate on, in words for the user."""
        held_out = len(self.held_out)
        against = f"{held_out} held out" if held_out else "too few to hold any out, validated on themselves"
        return f"{len(self.training)} {what} to train on, {against}"


def split_by_name(names: Sequence[str]) -> Split:
    """Hold out one sample in fifty, at most 256, chosen by their names; none from a set smaller than 50."""
    # By hashes of the names, so that adding samples moves few of the others from one set to the other.
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    count = min(HELD_OUT_MOST, int(len(names) * HELD_OUT_SHARE)) if len(names) >= HELD_OUT_FROM else 0
    return Split(torch.tensor(sorted(order[count:])), torch.tensor(sorted(order[:count]), dtype=torch.int64))
