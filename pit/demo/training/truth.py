"""What the pictures of the data set show, as targets for those that learn to read them."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..drawing.composition import Composition
from ..drawing.creature import ATTRIBUTES, COLOR_NAMES, UNSEEN, Creature, labels
from ..drawing.scenes import SCENE_NAMES
from ..drawing.things import THINGS, Thing
from .data import KINDS, TrainingPicture, training_picture

# A thing is one of all pairs of kind and color.
THING_PAIRS = len(THINGS) * len(COLOR_NAMES)


@dataclass(frozen=True)
class Truth:
    """Targets for N pictures.

    Attributes:
        labels: of the creature as it is shown, int64 `[N, A]`, -100 = not seen.
        scenes: indices into `SCENE_NAMES`, int64 `[N]`, -100 = a plain color.
        things: which pairs of kind and color stand there, float `[N, K * C]`.
        kinds: indices into `KINDS`, int64 `[N]`.
    """

    labels: Tensor
    scenes: Tensor
    things: Tensor
    kinds: Tensor


def picture_truth(seed: int, count: int) -> Truth:
    """The truth about the first pictures of the data set."""
    return truth_of([training_picture(seed, index) for index in range(count)])


def truth_of(pictures: Sequence[TrainingPicture]) -> Truth:
    """What pictures show."""
    return Truth(
        torch.tensor([labels_of(picture.composition.creature) for picture in pictures]),
        torch.tensor([scene_of(picture.composition) for picture in pictures]),
        torch.from_numpy(np.stack([things_of(picture) for picture in pictures])),
        torch.tensor([KINDS.index(picture.kind) for picture in pictures]),
    )


def weights_by_kind(kinds: Tensor, shares: Mapping[str, float]) -> Tensor:
    """How often each picture `[N]` is to be drawn, so that every one of `KINDS` has its share."""
    numbers = torch.bincount(kinds, minlength=len(KINDS)).clamp(min=1)
    return (torch.tensor([shares[kind] for kind in KINDS]) / numbers)[kinds]


def labels_of(creature: Creature | None) -> list[int]:
    """The labels of a creature as it stands, all of them unseen where there is none."""
    return labels(creature) if creature else [UNSEEN] * len(ATTRIBUTES)


def scene_of(composition: Composition) -> int:
    return UNSEEN if composition.ground else SCENE_NAMES.index(composition.scene)


def things_of(picture: TrainingPicture) -> np.ndarray:
    found = np.zeros(THING_PAIRS, np.float32)
    for thing, _ in picture.composition.things:
        found[pair_of(thing)] = 1
    return found


def pair_of(thing: Thing) -> int:
    """The number of its kind and color among all pairs, as in `Reading.things`."""
    return THINGS.index(thing.kind) * len(COLOR_NAMES) + COLOR_NAMES.index(thing.color)
