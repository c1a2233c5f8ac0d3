"""Where the parts of creatures truly are, and how groups that were found compare with that."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import one_hot

from ..encoders.dino import dino_features, dino_pixels, middle_box
from ..partcraft.discovery import Features
from .drawing.canvas import most_of_each
from .drawing.creature import PARTS, Creature
from .drawing.draw import draw_creature, draw_label_map
from .models.dino import PATCH
from .models.sizes import PICTURE_SIZE

GROUPS = len(PARTS) + 1  # with the background
# Where random rows are the first centroids, as published, most of them are background.
START = "spread"
AT_ONCE = 64


@dataclass(frozen=True)
class Collection:
    """Creatures on white.

    Attributes:
        truth: which part covers most of each place that DINO sees, by `PART_LABELS`, 0 = none; int64
            `[N, 16, 16]`.
    """

    creatures: list[Creature]
    pictures: list[Image.Image]
    truth: Tensor


@dataclass(frozen=True)
class Overlaps:
    """Groups of places, matched one to one with the true parts.

    Attributes:
        groups: the group of each part, int64 `[9]`.
        both, either: how many places of each creature belong to a part and its group, or to one of them,
            `[N, 9]`.
    """

    groups: Tensor
    both: Tensor
    either: Tensor

    @classmethod
    def of(cls, labels: Tensor, truth: Tensor) -> Overlaps:
        """Match the groups of places `[N, h, w]` so that the mean of intersection over union is greatest."""
        count = max(GROUPS, int(labels.max()) + 1)
        found, true = one_hot(labels.flatten(1), count).float(), one_hot(truth.flatten(1), GROUPS).float()
        both = found.transpose(1, 2) @ true
        either = found.sum(dim=1)[:, :, None] + true.sum(dim=1)[:, None] - both
        # The background takes part in the matching, so that its group is no part's.
        score = both.sum(dim=0) / either.sum(dim=0).clamp(min=1)
        rows, columns = linear_sum_assignment(score.numpy(), maximize=True)
        groups = torch.from_numpy(rows[np.argsort(columns)][1:])
        parts = torch.arange(1, GROUPS)
        return cls(groups, both[:, groups, parts], either[:, groups, parts])


def draw_collection(creatures: list[Creature]) -> Collection:
    """Draw creatures, and what is where."""
    return Collection(
        creatures, [draw_creature(creature, PICTURE_SIZE) for creature in creatures],
        torch.stack([true_places(creature) for creature in creatures]),
    )


def true_places(creature: Creature) -> Tensor:
    """Which part covers most of each place that DINO sees, int64 `[16, 16]`."""
    left, top, right, bottom = middle_box(PICTURE_SIZE, PICTURE_SIZE)
    found = draw_label_map(creature, PICTURE_SIZE)[top:bottom, left:right]
    return torch.from_numpy(most_of_each(found, PATCH)).long()


def features_of(dino: torch.nn.Module, pictures: Sequence[Image.Image]) -> Tensor:
    """What a DINO sees of the middle of pictures, `[N, d, 16, 16]`."""
    chunks = (pictures[start:start + AT_ONCE] for start in range(0, len(pictures), AT_ONCE))
    return torch.cat([dino_features(dino, dino_pixels(chunk)).float() for chunk in chunks])


def from_features(seen: Tensor) -> Features:
    """The features of numbered pictures, as `discover` asks for them."""
    return lambda numbers: seen[list(numbers)]
