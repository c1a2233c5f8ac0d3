"""What a training step of an operator sees: a pure function of the examples, the recipe, seed and step."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...files.records import Models
from ...training.order import Batch, concept_at
from ..embeddings import in_one_batch
from ..sample import TRAINING_STEPS, alphas_cumprod
from .draw import RANDOM_SHARES, Drawn, dropped


class Examples(Protocol):
    """What an operator learns from.

    Attributes:
        names: of the examples, in order.
        models: the models that made their embeddings.
        width: E of the embeddings.
        fingerprint: changes with any example.
        randoms: pictures that are learned without a condition, or nothing.
    """

    mode: str
    names: Sequence[str]
    models: Models
    width: int
    fingerprint: str
    randoms: Sequence[object]

    def draw(self, index: int, rng: random.Random) -> Drawn:
        """One of the samples that an example gives."""

    def draw_random(self, rng: random.Random) -> Drawn:
        """A sample of the random pictures."""


class Statistics(NamedTuple):
    """Mean and deviation of raw embeddings, `[E]` float32."""

    mean: Tensor
    std: Tensor

    def normalized(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.std

    def raw(self, normalized: Tensor) -> Tensor:
        return normalized * self.std.to(normalized.device) + self.mean.to(normalized.device)


@dataclass(frozen=True)
class OperatorBatch(Batch):
    """The samples of one step; all in normalized space but the sentences.

    Attributes:
        noisy: `[B, E]`, what the operator sees at `timesteps [B]`; clean: what it is to predict.
        condition: `[B, n, E]`; mask: `[B, n]`, False in slots that a sample does not have; None = all have
            all.
        sentences: raw embeddings `[B, E]` that predictions are to be near, None where no words are learned.
    """

    noisy: Tensor
    clean: Tensor
    timesteps: Tensor
    condition: Tensor
    mask: Tensor | None
    sentences: Tensor | None


def draw_batch(
    examples: Examples, numbers: Tensor, statistics: Statistics, seed: int, step: int, rows: range, total: int
) -> OperatorBatch:
    """The samples numbered `rows` out of the `total` of a step, over all its processes and batches.

    Args:
        numbers: of the examples to draw from; each occurs once in every pass over them.
    """
    samples, conditions, times, seeds = [], [], [], []
    for row in rows:
        # One generator per row, so that a row is the same whichever process or batch it falls to, and a
        # resumed run draws what an uninterrupted one would.
        rng = random.Random(f"{seed}/{step}/{row}")
        drawn = draw_sample(examples, concept_at(numbers, seed, step * total + row), rng)
        left_out = dropped(examples.mode, len(drawn.slots), drawn.is_random, rng)
        samples.append(drawn)
        conditions.append(condition_of(drawn, left_out, statistics))
        times.append(rng.randrange(TRAINING_STEPS))
        seeds.append(rng.getrandbits(63))
    return batch_of(samples, conditions, times, seeds, statistics)


def draw_sample(examples: Examples, index: int, rng: random.Random) -> Drawn:
    """An example, or now and then a random picture in its place, if there are any."""
    share = RANDOM_SHARES.get(examples.mode, 0.0) if examples.randoms else 0.0
    return examples.draw_random(rng) if rng.random() < share else examples.draw(index, rng)


def condition_of(drawn: Drawn, left_out: Sequence[bool], statistics: Statistics) -> Tensor:
    """The condition of a sample `[n, E]`: what is left out stays visible as zero, with its words."""
    shown = ~torch.tensor(left_out)[:, None]
    pictures = statistics.normalized(drawn.slots) * shown
    if drawn.words is None:
        return pictures
    # The words go with their picture. They are not normalized, as published.
    return torch.cat([pictures, drawn.words * shown[0]])


def batch_of(
    samples: Sequence[Drawn], conditions: Sequence[Tensor], times: Sequence[int], seeds: Sequence[int],
    statistics: Statistics,
) -> OperatorBatch:
    """A batch at given timesteps; the noise of a sample comes from its seed."""
    clean = statistics.normalized(torch.stack([each.target for each in samples]))
    noise = torch.stack([
        torch.randn(clean.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ])
    timesteps = torch.tensor(times)
    condition, mask = in_one_batch(conditions)
    sentences = [each.sentence for each in samples if each.sentence is not None]
    return OperatorBatch(
        add_noise(clean, noise, timesteps), clean, timesteps, condition,
        None if bool(mask.all()) else mask, torch.stack(sentences) if sentences else None,
    )


def add_noise(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """`[B, E]` at timesteps 0..999, by the schedule of the sampler."""
    kept = alphas_cumprod()[timesteps][:, None]
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise
