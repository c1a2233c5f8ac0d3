"""The validation loss of an IP-Prior: fixed targets, parts, times and noise, so that numbers compare."""
from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...flow.path import velocity_loss
from ...training.validation import TIMES, Validation
from ..parts import MIN_SLOTS
from ..prior import IPPrior
from .batches import EMPTY, PriorBatch, Sample, choose_parts, read_samples
from .cache import TokenCache

TIMES_EACH = 2
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class ValidationSet:
    """Samples with their times; tokens are read when they are needed."""

    cache: TokenCache
    samples: tuple[Sample, ...]
    times: tuple[float, ...]

    def batches(self) -> list[tuple[int, int]]:
        """The start and end of each batch."""
        return [(i, min(i + ROWS_AT_ONCE, len(self.times))) for i in range(0, len(self.times), ROWS_AT_ONCE)]

    def read(self, start: int, end: int) -> PriorBatch:
        # Noise from the sample's own seed; the random times of training are replaced by the fixed ones.
        batch = read_samples(self.cache, list(self.samples[start:end]))
        return replace(batch, t=torch.tensor(self.times[start:end]))


def validation_set(cache: TokenCache, concepts: Tensor, max_parts: int) -> ValidationSet:
    """Every concept at two times, with parts, order and noise that depend on its name and the time alone.

    The slots are as in inference: the reference if there is one, the parts, and white up to three slots.
    """
    samples, times = [], []
    for number, concept in enumerate(concepts.tolist()):
        for repeat in range(TIMES_EACH):
            # Half of the times apart, and one further for each concept: all times are covered alike.
            t = TIMES[(number + repeat * len(TIMES) // TIMES_EACH) % len(TIMES)]
            rng = random.Random(f"{cache.names[concept]}/{t}")
            slots = cache.reference_rows[concept, :1].tolist() + choose_parts(cache, concept, max_parts, rng)
            slots += [EMPTY] * (MIN_SLOTS - len(slots))
            samples.append(Sample(int(cache.target_rows[concept]), tuple(slots), rng.getrandbits(63)))
            times.append(t)
    return ValidationSet(cache, tuple(samples), tuple(times))


@torch.no_grad()
def validate(prior: IPPrior, chosen: ValidationSet, device: torch.device) -> Validation:
    """The validation loss of a prior."""
    losses = []
    for start, end in chosen.batches():
        batch = chosen.read(start, end).to(device)
        losses.append(batch_loss(prior, batch))
    loss, time = torch.cat(losses).cpu(), torch.tensor(chosen.times)
    # Not compared exactly: the times have been through float32.
    by_time = tuple(loss[(time - t).abs() < 1e-4].mean().item() for t in TIMES)
    return Validation(loss.mean().item(), by_time)


def batch_loss(prior: IPPrior, batch: PriorBatch) -> Tensor:
    """The velocity loss of a batch whose samples may have different numbers of slots, `[B]`."""
    def masked(x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
        return prior(x, t, parts, batch.mask)

    return velocity_loss(masked, batch.clean, batch.parts, batch.t, batch.noise)
