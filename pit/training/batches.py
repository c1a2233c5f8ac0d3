"""What a training step sees: a pure function of the token cache, the recipe, the seed and the step.

There is no loader and so no state of one: a run that was stopped draws what an uninterrupted one draws, and
two processes with half of the rows each draw what one process draws with all of them.
"""
from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

import torch
from torch import Tensor

from ..flow import logit_normal_time
from .cache import TokenCache
from .prior_recipes import PriorRecipe

EMPTY = -1
MIN_SLOTS = 3  # inference fills up to three slots with white, so training must know them
HELD_OUT_SHARE = 0.02
HELD_OUT_MOST = 256
HELD_OUT_FROM = 50
GPU_READERS = 4  # a step on a fast GPU is over before one thread has read the next batch


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        clean: tokens of the targets `[B, 16, D]`, fp16 as the cache holds them until they are on the device.
        parts: tokens of the slots `[B, 16 P, D]`, likewise.
        mask: `[B, 16 P]`, False in slots that a sample does not have; None = all have all.
        t: `[B]`; noise: `[B, 16, D]`.
    """

    clean: Tensor
    parts: Tensor
    mask: Tensor | None
    t: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> Batch:
        """On a device, the tokens in fp32."""
        moved = self.each(lambda value: value.to(device, non_blocking=True))
        return replace(moved, clean=moved.clean.float(), parts=moved.parts.float())

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        return Batch(**{name: None if value is None else change(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Sample:
    """One sample before its tokens are read: rows of the cache, `EMPTY` for a white slot."""

    target: int
    slots: tuple[int, ...]
    noise_seed: int


@dataclass(frozen=True)
class Split:
    """Numbers of the concepts to train on, and of those held out to validate."""

    training: Tensor
    held_out: Tensor


def split_concepts(cache: TokenCache) -> Split:
    """Hold out one concept in fifty, at most 256, chosen by their names; none of a set smaller than 50."""
    order = sorted(range(len(cache)), key=lambda i: hashlib.sha256(cache.names[i].encode()).digest())
    count = min(HELD_OUT_MOST, int(len(cache) * HELD_OUT_SHARE)) if len(cache) >= HELD_OUT_FROM else 0
    return Split(torch.tensor(sorted(order[count:])), torch.tensor(sorted(order[:count]), dtype=torch.int64))


def draw_batch(
    cache: TokenCache, concepts: Tensor, recipe: PriorRecipe, seed: int, step: int, rows: range, total: int
) -> Batch:
    """The samples number `rows` out of the `total` of a step, over all its processes and batches.

    Args:
        concepts: numbers of the concepts to draw from; each comes once in every pass over them.
    """
    most = slot_count(cache, recipe)
    chosen = [concept_at(concepts, seed, step * total + row) for row in rows]
    samples = [
        draw_sample(cache, concept, recipe, most, random.Random(f"{seed}/{step}/{row}"))
        for concept, row in zip(chosen, rows, strict=True)
    ]
    if recipe.lengths == "batch":
        length = shortened(random.Random(f"{seed}/{step}/length"), most, recipe)
        samples = [Sample(each.target, each.slots[:length], each.noise_seed) for each in samples]
    return read_samples(cache, samples, recipe.time_mean, recipe.time_spread)


@contextmanager
def read_ahead(
    draw: Callable[[int, int], Batch], step: int, accumulation: int, device: torch.device
) -> Iterator[Iterator[Batch]]:
    """The batches `draw(step, micro)` of this step and all that follow, in order, drawn in threads.

    Each of them works with one core: the cores that torch would take for it go on waiting for more, busily,
    and on a CPU that made the step beside it half as long again.
    """
    cores = torch.get_num_threads()
    places = ((s, micro) for s in count(step) for micro in range(accumulation))
    readers = GPU_READERS if device.type == "cuda" else 1

    def read(place: tuple[int, int]) -> Batch:
        batch = draw(*place)
        return batch.each(Tensor.pin_memory) if device.type == "cuda" else batch

    with ThreadPoolExecutor(readers, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        coming = deque(threads.submit(read, next(places)) for _ in range(readers))

        def batches() -> Iterator[Batch]:
            while True:
                batch = coming.popleft().result()
                coming.append(threads.submit(read, next(places)))
                yield batch

        try:
            yield batches()
        finally:
            threads.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)  # it holds for the calling thread and for those yet to come


def slot_count(cache: TokenCache, recipe: PriorRecipe) -> int:
    """Slots of an unshortened sample: the reference, and as many parts as the recipe and the cache have."""
    parts = min(recipe.max_parts, int((cache.part_offsets[1:] - cache.part_offsets[:-1]).max()))
    reference = int(cache.reference_rows.shape[1] > 0)
    return max(MIN_SLOTS, reference + parts)


def draw_sample(
    cache: TokenCache, concept: int, recipe: PriorRecipe, most: int, rng: random.Random
) -> Sample:
    """Choose the parts of a sample with `most` slots as published; "sample" lengths are drawn here too."""
    empty = rng.random() < recipe.empty_share
    slots = [] if empty else choose_parts(cache, concept, recipe.max_parts, rng)
    if cache.reference_rows.shape[1]:
        shown = recipe.keep_reference or not empty
        slots.insert(0, int(rng.choice(cache.reference_rows[concept])) if shown else EMPTY)
    slots += [EMPTY] * (most - len(slots))
    if recipe.lengths == "sample":
        slots = slots[:shortened(rng, most, recipe)]
    return Sample(int(cache.target_rows[concept]), tuple(slots), rng.getrandbits(63))


def choose_parts(cache: TokenCache, concept: int, most: int, rng: random.Random) -> list[int]:
    """Rows of one to `most` parts of a concept, in random order, each in one of its variants."""
    first, last = cache.part_offsets[concept:concept + 2].tolist()
    count = min(rng.randint(1, last - first), most)
    chosen = rng.sample(range(first, last), count)
    return [int(cache.part_rows[part]) + rng.randrange(cache.variants) for part in chosen]


def shortened(rng: random.Random, slots: int, recipe: PriorRecipe) -> int:
    """How many of the slots stay: all, or with the recipe's share any number of them."""
    return rng.randint(1, slots) if rng.random() < recipe.shortened_share else slots


def concept_at(concepts: Tensor, seed: int, position: int) -> int:
    """The concept at a position of the endless sequence of passes."""
    epoch, place = divmod(position, len(concepts))
    return int(concepts[permutation(len(concepts), seed, epoch)[place]])


@lru_cache(maxsize=2)
def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """The order of one pass over all concepts."""
    order = random.Random(f"{seed}/pass {epoch}").getrandbits(63)
    return torch.randperm(count, generator=torch.Generator().manual_seed(order))


def read_samples(
    cache: TokenCache, samples: list[Sample], time_mean: float = 0.0, time_spread: float = 1.0
) -> Batch:
    """Read the tokens of samples; shorter ones are filled up and masked. Draw times and noise."""
    length = max(len(sample.slots) for sample in samples)
    rows = torch.tensor([sample.slots + (EMPTY,) * (length - len(sample.slots)) for sample in samples])
    seen = torch.arange(length) < torch.tensor([[len(sample.slots)] for sample in samples])
    parts = cache.empty.half().expand(rows.numel(), -1, -1).clone()
    given = (rows != EMPTY).flatten()
    parts[given] = cache.rows(rows.flatten()[given])
    tokens = parts.shape[1]
    clean = cache.rows(torch.tensor([sample.target for sample in samples]))
    generators = [torch.Generator().manual_seed(sample.noise_seed) for sample in samples]
    t = torch.cat([logit_normal_time(1, each, time_mean, time_spread) for each in generators])
    noise = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
    mask = None if seen.all() else seen.repeat_interleave(tokens, dim=1)
    return Batch(clean, parts.unflatten(0, rows.shape).flatten(1, 2), mask, t, noise)
