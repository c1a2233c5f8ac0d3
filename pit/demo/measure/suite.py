"""The models that are measured, and the measures of what the prior and the adapter keep."""
from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from ..drawing.creature import SCENES, UNSEEN, Creature
from ..drawing.draw import draw_creature, whole_view
from ..models.chain import CreatureChain
from ..models.reader import CreatureReader, Reading, as_pictures
from ..models.sizes import PICTURE_SIZE
from .estimates import Estimate, column_shares, mean, ratio, share
from .pictures import batches
from .scores import (
    NAMES,
    border_distances,
    frechet_distance,
    is_found,
    kept,
    kernel_distance,
    open_entropies,
    targets_of,
)
from .trials import FREE, Trial, all_targets, draw_trials, scene_caption, true_pictures

T = TypeVar("T")
DIVERSE_SEEDS = 32
WHITES = 32  # creatures rendered on white
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


@dataclass
class Laboratory:
    """The models that are measured, and the reader that judges them.

    Attributes:
        on_pictures: called with the number of pictures after each batch that was rendered.
    """

    chain: CreatureChain
    reader: CreatureReader
    seed: int
    on_pictures: Callable[[int], None] = field(default=lambda count: None)
    _made: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns; made once, since several measures need it, and kept with this laboratory."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def read(self, pictures: Iterable[Image.Image]) -> Reading:
        """Read pictures of 256 px."""
        return Reading.joined([self.reader.read(as_pictures(batch)) for batch in batches(pictures)])

    def true_reading(self, creatures: list[Creature]) -> Reading:
        """Read the creatures as they are drawn."""
        return self.read(draw_creature(creature, PICTURE_SIZE) for creature in creatures)

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


@dataclass(frozen=True)
class Encoded:
    """Creatures whose parts are not given one by one, but all at once, by their own tokens.

    Attributes:
        targets: all attributes that each shows, `[N, A]`.
        tokens: `[N, 16, D]`.
        rendered: what is read when these are rendered, each in its scene.
    """

    creatures: list[Creature]
    targets: Tensor
    tokens: Tensor
    rendered: Reading


def encoded(lab: Laboratory, count: int, coherence: float) -> Encoded:
    """Unseen creatures, encoded and rendered."""
    def make() -> Encoded:
        creatures = [trial.creature for trial in draw_trials(lab.seed, count, 1, coherence)]
        tokens = lab.chain.encode([whole_view(creature) for creature in creatures])
        rendered = lab.render(tokens, [scene_caption(creature.scene) for creature in creatures])
        return Encoded(creatures, torch.stack([targets_of(each) for each in creatures]), tokens, rendered)

    return lab.once(("encoded", count, coherence), make)


def completed(lab: Laboratory, count: int, parts: int, coherence: float) -> tuple[list[Trial], Reading]:
    """Trials, and what is read in the pictures that the recommended prior leads to."""
    def make() -> tuple[list[Trial], Reading]:
        trials = draw_trials(lab.seed, count, parts, coherence)
        tokens = lab.sample(lab.conditions(trials), RECOMMENDED)
        return trials, lab.render(tokens, [trial.caption for trial in trials])

    return lab.once(("completed", count, parts, coherence), make)


def ceilings(lab: Laboratory, known: Encoded) -> dict[str, Estimate]:
    """The share of all attributes of true creatures that survive, stage by stage: as drawn, after the
    autoencoder, and rendered from the true tokens.
    """
    pictures = true_pictures(known.creatures)
    # Saved reports use these names, although the first is drawn and the last is rendered.
    readings = {
        "rendered": lab.read(pictures),
        "autoencoder": lab.reader.read(lab.chain.reconstruct(pictures)),
        "drawn": known.rendered,
    }
    return {name: mean(kept(reading, known.targets)) for name, reading in readings.items()}


def shares_by_attribute(reading: Reading, targets: Tensor) -> dict[str, Estimate]:
    """How often each attribute is found where it is wanted; targets `[N, A]`, -100 = not wanted."""
    return column_shares(is_found(reading, targets), targets != UNSEEN, NAMES)


def whites_from_tokens(lab: Laboratory, known: Encoded) -> Estimate:
    """How far the borders of creatures rendered on white are from white; see `border_distances`."""
    tokens = known.tokens[:WHITES]
    captions = [scene_caption("white")] * len(tokens)
    return mean(border_distances(lab.chain.render(tokens, captions, lab.seed, on_batch=lab.on_pictures)))


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
