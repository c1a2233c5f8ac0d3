"""How far the reader, on which nearly all other measures rely, can be trusted."""
from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor

from ..drawing.composition import THING_LABEL
from ..drawing.creature import UNSEEN
from ..drawing.flaws import flawed
from ..models.reader import MAP_SIZE, Reading
from ..training.data import ALONE, POSED, THINGS, WITH_THINGS
from ..training.truth import Truth, truth_of
from .estimates import Estimate, column_shares, ratio, share
from .pictures import drawn, drawn_maps, fresh_pictures
from .scores import NAMES, found_things, is_whole
from .suite import Laboratory

READ_KINDS = (ALONE, POSED, WITH_THINGS, THINGS)


class Accuracy(NamedTuple):
    """How often the reader is right.

    Attributes:
        average: over the attributes, things and scenes, each of which counts the same.
        shares: of every attribute, "things" (all pairs of kind and color are found, and no other), "scene",
            "number of things" from none to two, "no thing" where there is none, and "whole", on as many
            flawed creatures as complete ones.
        maps: mean intersection over union of the ground, every part and things in the label maps.
    """

    average: Estimate
    shares: dict[str, Estimate]
    maps: Estimate


def reader_accuracy(lab: Laboratory, count: int) -> Accuracy:
    """How often the reader is right on `count` fresh pictures of each of `READ_KINDS`."""
    pictures = [
        picture for kind in READ_KINDS for picture in fresh_pictures(lab.seed, kind, count, "reader")
    ]
    shown = [picture.composition for picture in pictures]
    reading, truth = lab.read(drawn(shown)), truth_of(pictures)
    complete = [composition for composition in shown if composition.creature]
    rng = random.Random(f"flawed/{lab.seed}")
    broken = lab.read(flawed(composition, rng) for composition in complete)
    right, seen = answers(reading, truth)
    nothing = ~truth.things.any(dim=1)
    numbers = torch.tensor([len(composition.things) for composition in shown])
    shares = column_shares(right, seen, [*NAMES, "things", "scene"]) | {
        "number of things": share(reading.counts == numbers),
        "no thing": share(~found_things(reading).any(dim=1)[nothing]),
        "whole": share(torch.cat([is_whole(reading)[has_creature(truth)], ~is_whole(broken)])),
    }
    maps = map_overlap(reading.maps, drawn_maps(shown, MAP_SIZE))
    return Accuracy(ratio(right & seen, seen), shares, maps)


def answers(reading: Reading, truth: Truth) -> tuple[Tensor, Tensor]:
    """What is read right, and where there is anything to read: bool `[N, A + 2]` each.

    The attributes, then the things, then the scene.
    """
    things = (found_things(reading) == truth.things.bool()).all(dim=1)
    right = [reading.attributes == truth.labels, things[:, None], (reading.scenes == truth.scenes)[:, None]]
    seen = [truth.labels != UNSEEN, truth.things.any(dim=1)[:, None], (truth.scenes != UNSEEN)[:, None]]
    return torch.cat(right, dim=1), torch.cat(seen, dim=1)


def has_creature(truth: Truth) -> Tensor:
    """Which pictures show a creature, `[N]`."""
    return (truth.labels != UNSEEN).any(dim=1)


def map_overlap(found: Tensor, true: Tensor) -> Estimate:
    """Mean intersection over union of all labels in maps `[N, S, S]`.

    Pixels are summed over all pictures before they are divided.
    """
    both, either = [], []
    for label in range(THING_LABEL + 1):
        ours, theirs = found == label, true == label
        both.append((ours & theirs).sum(dim=(1, 2)))
        either.append((ours | theirs).sum(dim=(1, 2)))
    return ratio(torch.stack(both, dim=1), torch.stack(either, dim=1))
