"""What a measure asks of the models: unseen creatures, and which of their parts are given."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..drawing.creature import ALL_SCENE_WORDS, PARTS, SCENES, Creature, sample_creature
from ..drawing.draw import draw_creature, draw_part
from ..models.sizes import PICTURE_SIZE
from .scores import targets_of

FREE, NATURAL = 0.0, 0.8  # free mixtures, and creatures that mostly follow their species
COHERENCE = {"free": FREE, "natural": NATURAL}
PART_PICTURE_SIZE = 256
MAX_SEED = 2**32 - 1  # far below torch's limit, since numbers of concepts and batches are added to it


@dataclass(frozen=True)
class Trial:
    """A creature, and the parts of it that are given."""

    creature: Creature
    parts: tuple[str, ...]

    @property
    def caption(self) -> str:
        """A prompt that names the scene, but nothing of the creature."""
        return scene_caption(self.creature.scene)

    @property
    def targets(self) -> Tensor:
        """The attributes that the given parts show, `[A]`, -100 elsewhere."""
        return targets_of(self.creature, list(self.parts))

    def part_pictures(self) -> list[Image.Image]:
        """The given parts, one picture each (RGB)."""
        return [draw_part(self.creature, part, PART_PICTURE_SIZE) for part in self.parts]


def scene_caption(scene: str) -> str:
    """A prompt that names the scene, but nothing of the creature."""
    return f"a creature{ALL_SCENE_WORDS[scene]}"


def draw_trials(
    seed: int, count: int, parts: int, coherence: float, scenes: Sequence[str] = SCENES,
    purpose: str = "measure",
) -> list[Trial]:
    """Trials with `parts` given parts each, the same for the same arguments.

    Args:
        purpose: measures with different purposes get different creatures.
    Raises:
        ValueError: a seed outside 0..2**32-1, or a number of parts that no creature has.
    """
    check_seed(seed)
    if not 1 <= parts <= len(PARTS):
        raise ValueError(f"Expected 1 to {len(PARTS)} parts of a creature, got {parts}.")
    rng = random.Random(f"{purpose}/{seed}/{parts}/{coherence}")
    trials = []
    while len(trials) < count:
        creature = sample_creature(rng, coherence, scene=rng.choice(list(scenes)))
        if len(creature.parts) >= parts:
            trials.append(Trial(creature, tuple(rng.sample(creature.parts, parts))))
    return trials


def check_seed(seed: int) -> None:
    """Check that measures can use a seed.

    Raises:
        ValueError: the seed lies outside 0..2**32-1.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"Expected a seed between 0 and {MAX_SEED}, got {seed}.")


def all_targets(trials: list[Trial]) -> Tensor:
    """The attributes that the given parts of each trial show, `[N, A]`."""
    return torch.stack([trial.targets for trial in trials])


def true_pictures(creatures: list[Creature]) -> list[Image.Image]:
    """The creatures in their scenes, as they are drawn."""
    return [draw_creature(creature, PICTURE_SIZE) for creature in creatures]
