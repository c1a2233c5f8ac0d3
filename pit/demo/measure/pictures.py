"""Pictures that no training has seen, of the kinds that the data set has, and what they show."""
from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..drawing.composition import THING_LABEL, Composition, compose, draw_composition, draw_map
from ..drawing.creature import sample_creature
from ..drawing.things import Thing, sample_thing
from ..drawing.variety import random_ground
from ..models.sizes import PICTURE_SIZE
from ..training.data import (
    EMPTY,
    THINGS,
    TWO_THINGS,
    WITH_THINGS,
    TrainingPicture,
    clear_pose,
)
from .trials import FREE

T = TypeVar("T")


def fresh_pictures(seed: int, kind: str, count: int, purpose: str) -> list[TrainingPicture]:
    """Pictures of one of `KINDS`, drawn as those of the data set, but always of free mixtures.

    Args:
        purpose: measures with different purposes get different pictures.
    """
    rng = random.Random(f"{purpose}/{seed}/{kind}")
    return [fresh_picture(rng, kind) for _ in range(count)]


def fresh_picture(rng: random.Random, kind: str) -> TrainingPicture:
    """One such picture."""
    creature, things = sample_creature(rng, FREE), fresh_things(rng, kind)
    shown = None if kind in (THINGS, EMPTY) else replace(creature, pose=clear_pose(rng, kind))
    scene, ground = random_ground(rng)
    return TrainingPicture(kind, creature, compose(shown, things, scene=scene, ground=ground, rng=rng))


def fresh_things(rng: random.Random, kind: str) -> list[Thing]:
    """One thing or two, in pictures of things."""
    if kind not in (THINGS, WITH_THINGS):
        return []
    return [sample_thing(rng) for _ in range(2 if rng.random() < TWO_THINGS else 1)]


def drawn(compositions: Iterable[Composition]) -> Iterator[Image.Image]:
    """The compositions as pictures (RGB, 256 px), one after the other."""
    return (draw_composition(composition, PICTURE_SIZE) for composition in compositions)


def drawn_maps(compositions: Iterable[Composition], pixels: int) -> Tensor:
    """What is at each pixel, things all with `THING_LABEL`, uint8 `[N, pixels, pixels]`."""
    maps = [draw_map(composition, pixels).clip(max=THING_LABEL) for composition in compositions]
    return torch.from_numpy(np.stack(maps))


def batches(items: Iterable[T], size: int = 64) -> Iterator[list[T]]:
    """The items in lists of up to `size`: all pictures at once would fill the memory."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
