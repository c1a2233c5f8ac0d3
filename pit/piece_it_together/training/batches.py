"""What a training step of an IP-Prior sees: a pure function of token cache, recipe, seed and step."""
from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...flow.path import logit_normal_time
from ...training.order import Batch, concept_at
from ..parts import MIN_SLOTS
from .cache import TokenCache
from .recipes import PriorRecipe

EMPTY = -1


@dataclass(frozen=True)
class PriorBatch(Batch):
    """The samples of one step.

    Attributes:
        clean: tokens of the targets `[B, 16, D]`, fp16 as in the cache until they are on the device.
        parts: tokens of the slots `[B, 16 P, D]`, likewise.
        mask: `[B, 16 P]`, False in slots that a sample does not have; None = every sample has every slot.
        t: `[B]`; noise: `[B, 16, D]`.
    """

    clean: Tensor
    parts: Tensor
    mask: Tensor | None
    t: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> PriorBatch:
        """On a device, the tokens in fp32."""
        # Widened only there: half as many bytes go over the bus.
        moved = super().to(device)
        return replace(moved, clean=moved.clean.float(), parts=moved.parts.float())


@dataclass(frozen=True)
class Sample:
    """One sample before its tokens are read: rows in the cache, `EMPTY` for a white slot."""

    target: int
    slots: tuple[int, ...]
    noise_seed: int


def draw_batch(
    cache: TokenCache, concepts: Tensor, recipe: PriorRecipe, seed: int, step: int, rows: range, total: int
) -> PriorBatch:
    """The samples numbered `rows` out of the `total` of a step, over all its processes and batches.

    Args:
        concepts: numbers of the concepts to draw from; each occurs once in every pass over them.
    """
    most = slot_count(cache, recipe)
    chosen = [concept_at(concepts, seed, step * total + row) for row in rows]
    samples = [
        draw_sample(cache, concept, recipe, most, random.Random(f"{seed}/{step}/{row}"))
        for concept, row in zip(chosen, rows, strict=True)
    ]
    if recipe.lengths == "batch":
        # From the step alone, so that all processes and batches of a step shorten alike.
        length = shortened(random.Random(f"{seed}/{step}/length"), most, recipe)
        samples = [Sample(each.target, each.slots[:length], each.noise_seed) for each in samples]
    return read_samples(cache, samples, recipe.time_mean, recipe.time_spread)


def slot_count(cache: TokenCache, recipe: PriorRecipe) -> int:
    """Slots of an unshortened sample: the reference, and as many parts as recipe and cache allow."""
    parts = min(recipe.max_parts, int((cache.part_offsets[1:] - cache.part_offsets[:-1]).max()))
    reference = int(cache.reference_rows.shape[1] > 0)
    return max(MIN_SLOTS, reference + parts)


def draw_sample(
    cache: TokenCache, concept: int, recipe: PriorRecipe, most: int, rng: random.Random
) -> Sample:
    """Choose the parts of a sample with `most` slots, as published; "sample" lengths are drawn here, too."""
    # A generator of its own for each sample, drawn from in one fixed order: any sample can be drawn anew
    # without those before it, which is what resuming and reading ahead rely on.
    empty = rng.random() < recipe.empty_share
    slots = [] if empty else choose_parts(cache, concept, recipe.max_parts, rng)
    if cache.reference_rows.shape[1]:
        shown = recipe.keep_reference or not empty
        slots.insert(0, int(rng.choice(cache.reference_rows[concept])) if shown else EMPTY)
    # White slots at the end: inference fills up with white, too, so that the prior must have seen it.
    slots += [EMPTY] * (most - len(slots))
    if recipe.lengths == "sample":
        slots = slots[:shortened(rng, most, recipe)]
    return Sample(int(cache.target_rows[concept]), tuple(slots), rng.getrandbits(63))


def choose_parts(cache: TokenCache, concept: int, most: int, rng: random.Random) -> list[int]:
    """Rows of one to `most` parts of a concept, in random order, each in one of its variants."""
    first, last = cache.part_offsets[concept:concept + 2].tolist()
    # As published, any number up to all parts, then capped: not every number up to the cap is equally likely.
    count = min(rng.randint(1, last - first), most)
    chosen = rng.sample(range(first, last), count)
    return [int(cache.part_rows[part]) + rng.randrange(cache.variants) for part in chosen]


def shortened(rng: random.Random, slots: int, recipe: PriorRecipe) -> int:
    """How many of the slots remain: all, or with the recipe's share any number of them."""
    return rng.randint(1, slots) if rng.random() < recipe.shortened_share else slots


def read_samples(
    cache: TokenCache, samples: list[Sample], time_mean: float = 0.0, time_spread: float = 1.0
) -> PriorBatch:
    """Read the tokens of samples, draw times and noise; shorter samples are padded and masked."""
    length = max(len(sample.slots) for sample in samples)
    rows = torch.tensor([sample.slots + (EMPTY,) * (length - len(sample.slots)) for sample in samples])
    seen = torch.arange(length) < torch.tensor([[len(sample.slots)] for sample in samples])
    # The tokens of the white picture are stored once, not in every slot of the cache.
    parts = cache.empty.half().expand(rows.numel(), -1, -1).clone()
    given = (rows != EMPTY).flatten()
    parts[given] = cache.rows(rows.flatten()[given])
    tokens = parts.shape[1]
    clean = cache.rows(torch.tensor([sample.target for sample in samples]))
    generators = [torch.Generator().manual_seed(sample.noise_seed) for sample in samples]
    t = torch.cat([logit_normal_time(1, each, time_mean, time_spread) for each in generators])
    noise = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
    # Attention has faster kernels without a mask, and samples of one length need none.
    mask = None if seen.all() else seen.repeat_interleave(tokens, dim=1)
    return PriorBatch(clean, parts.unflatten(0, rows.shape).flatten(1, 2), mask, t, noise)
