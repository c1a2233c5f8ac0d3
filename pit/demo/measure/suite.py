"""The measures, each a function of the models and the trials."""
from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from ..drawing.creature import ATTRIBUTES, SCENES, Creature, sample_creature
from ..drawing.flaws import draw_flawed
from ..models.chain import CreatureChain
from ..models.reader import CreatureReader, Reading, as_pictures
from .estimates import Estimate, mean, ratio, share
from .scores import (
    HIDDEN,
    frechet_distance,
    is_whole,
    kept,
    kernel_distance,
    open_entropies,
    targets_of,
)
from .trials import FREE, Trial, all_targets, draw_trials, scene_caption, true_pictures, whole_view

DIVERSE_SEEDS = 32
WORDED_SCENES = [scene for scene in SCENES if scene != "white"]


@dataclass(frozen=True)
class Sampling:
    """Settings of the prior's sampler."""

    guidance_scale: float
    steps: int = 25
    solver: str = "euler"


# At a guidance of 3 the prior keeps no more of the parts, but its inventions vary less.
RECOMMENDED = Sampling(guidance_scale=2.5)
PUBLISHED = Sampling(guidance_scale=2.0)
UNGUIDED = Sampling(guidance_scale=1.0)


@dataclass(eq=False)  # compared, and so hashed, by identity: `baselines.training_parts` caches by it
class Laboratory:
    """The models that are measured, and the reader that judges them.

    Attributes:
        on_pictures: called with the number of pictures after each batch that was rendered.
    """

    chain: CreatureChain
    reader: CreatureReader
    seed: int
    on_pictures: Callable[[int], None] = field(default=lambda count: None)

    def read(self, pictures: list[Image.Image]) -> Reading:
        """Read pictures of 128 px."""
        return self.reader.read(as_pictures(pictures))

    def true_reading(self, creatures: list[Creature]) -> Reading:
        """Read the creatures as they are drawn."""
        return self.read(true_pictures(creatures))

    def conditions(self, trials: list[Trial]) -> Tensor:
        """The prior's condition for each trial, `[N, 16 S, D]`."""
        parts = (self.chain.encode_parts(trial.part_pictures()) for trial in trials)
        return torch.stack([self.chain.slots(tokens) for tokens in parts])

    def sample(self, conditions: Tensor, sampling: Sampling) -> Tensor:
        """The tokens of one concept for each condition, `[N, 16, D]`."""
        return self.chain.sample(
            conditions, self.seed, guidance_scale=sampling.guidance_scale, steps=sampling.steps,
            solver=sampling.solver,
        )

    def render(self, tokens: Tensor, captions: list[str], weight: float = 1.0) -> Reading:
        """Render tokens `[N, T, D]`, and read the pictures."""
        pictures = self.chain.render(tokens, captions, self.seed, weight=weight, on_batch=self.on_pictures)
        return self.reader.read(pictures)


def reader_accuracy(lab: Laboratory, count: int) -> tuple[Estimate, dict[str, Estimate]]:
    """How often the reader is right on freshly drawn free mixtures.

    Returns:
        The mean over the attributes; and the share for each attribute, among the pictures that show it, for
        `scene`, and for `whole`, on as many flawed creatures as complete ones.
    """
    rng = random.Random(f"reader/{lab.seed}")
    creatures = [sample_creature(rng, FREE, scene=rng.choice(SCENES)) for _ in range(count)]
    reading, flawed = lab.true_reading(creatures), lab.read([draw_flawed(c, rng) for c in creatures])
    targets = torch.stack([targets_of(creature) for creature in creatures])
    right, shown = reading.attributes == targets, targets != HIDDEN
    found = {name: share(right[shown[:, index], index]) for index, name in enumerate(ATTRIBUTES)}
    weights = shown / shown.sum(dim=0)  # every attribute counts the same, however often it is shown
    average = ratio((right * weights).sum(dim=1), weights.sum(dim=1))
    scenes = torch.tensor([SCENES.index(creature.scene) for creature in creatures])
    return average, found | {
        "scene": share(reading.scenes == scenes),
        "whole": share(torch.cat([is_whole(reading), ~is_whole(flawed)])),
    }


def ceilings(lab: Laboratory, creatures: list[Creature]) -> tuple[dict[str, Estimate], Reading]:
    """The share of all attributes of true creatures that survive, stage by stage.

    Returns:
        The shares as drawn, after the autoencoder, and rendered from the true tokens; and the reading of the
        last.
    """
    targets = torch.stack([targets_of(creature) for creature in creatures])
    pictures = true_pictures(creatures)
    tokens = lab.chain.encode([whole_view(creature) for creature in creatures])
    rendered = lab.render(tokens, [scene_caption(creature.scene) for creature in creatures])
    # Saved reports use these names, although the first is drawn and the last is rendered.
    readings = {
        "rendered": lab.read(pictures),
        "autoencoder": lab.reader.read(lab.chain.reconstruct(pictures)),
        "drawn": rendered,
    }
    return {name: mean(kept(reading, targets)) for name, reading in readings.items()}, rendered


def kept_and_floor(reading: Reading, trials: list[Trial]) -> tuple[Estimate, Estimate]:
    """The share of the given parts' attributes found, and that of another trial's, which is chance."""
    targets = all_targets(trials)
    return mean(kept(reading, targets)), mean(kept(reading, targets.roll(1, dims=0)))


def diversity(lab: Laboratory, sets: int, sampling: Sampling) -> Estimate:
    """Entropy of the attributes that were not given, over 32 seeds, relative to that of free mixtures.

    Both entropies come from equally many samples: rendered pictures, as the reader reads them, and fresh free
    mixtures around the same two given parts.
    """
    trials = draw_trials(lab.seed, sets, 2, FREE, purpose="diverse")
    ours, theirs = [], []
    for number, trial in enumerate(trials):
        tokens = lab.sample(lab.conditions([trial]).expand(DIVERSE_SEEDS, -1, -1), sampling)
        reading = lab.render(tokens, [trial.caption] * DIVERSE_SEEDS)
        rng = random.Random(f"diverse/{lab.seed}/{number}")
        rendered, free = open_entropies(reading, trial.targets, rng)
        ours.append(rendered)
        theirs.append(free)
    return ratio(torch.stack(ours), torch.stack(theirs))


def scenes_as_asked(
    lab: Laboratory, trials: list[Trial], tokens: Tensor, weight: float
) -> tuple[Estimate, Estimate]:
    """At an adapter weight: the share of pictures with the scene asked for, and of attributes kept."""
    reading = lab.render(tokens, [trial.caption for trial in trials], weight)
    asked = torch.tensor([SCENES.index(trial.creature.scene) for trial in trials])
    return share(reading.scenes == asked), mean(kept(reading, all_targets(trials)))


def distances(lab: Laboratory, rendered: Reading, ceiling: Reading, coherence: float) -> dict[str, float]:
    """How far rendered creatures, and those rendered from true tokens, are from drawings of other creatures.

    Measured on the reader's features.
    """
    # A Fréchet distance between finite samples is never zero: it needs one of two sets of drawings beside it.
    count = len(rendered.features)
    others = draw_trials(lab.seed, 2 * count, 1, coherence, purpose="distances")
    first, second = lab.true_reading([trial.creature for trial in others]).features.split(count)
    return {
        "frechet": frechet_distance(rendered.features, first),
        "frechet of renders": frechet_distance(second, first),
        "kernel": kernel_distance(rendered.features, first),
        "kernel of the ceiling": kernel_distance(ceiling.features, first),
    }


def seconds_per_stage(lab: Laboratory, sampling: Sampling, concepts: int = 8) -> dict[str, float]:
    """Seconds that each stage takes for eight concepts of one set of three parts, once warmed up."""
    trial = draw_trials(lab.seed, 1, 3, FREE, purpose="seconds")[0]
    pictures = trial.part_pictures()
    latents = torch.zeros(concepts, 4, 16, 16)
    conditions = lab.conditions([trial]).expand(concepts, -1, -1)
    tokens = lab.chain.empty.expand(concepts, -1, -1)
    stages: dict[str, Callable[[], object]] = {
        "encode the parts": lambda: lab.chain.encode_parts(pictures),
        "sample the tokens": lambda: lab.sample(conditions, sampling),
        "denoise": lambda: lab.chain.denoise(tokens, [trial.caption] * concepts, torch.Generator()),
        "decode": lambda: lab.chain.decode(latents),
    }
    return {name: _seconds(stage) for name, stage in stages.items()}


def _seconds(stage: Callable[[], object]) -> float:
    stage()  # the first call also pays for memory and kernels
    start = time.perf_counter()
    stage()
    return time.perf_counter() - start
