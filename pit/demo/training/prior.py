"""The IP-Prior on the creatures' tokens, with the published loss and, at first, a training aid."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...flow import interpolate, logit_normal_time
from ...prior import IPPrior
from ..sizes import PRIOR
from .data import NO_PART, PART_VIEWS
from .encoder import Reading, attribute_loss
from .stage import Run, Stage, train_stage

STAGE = Stage("prior", steps=7000, batch=64, learning_rate=1.5e-3, warmup=200, ema_decay=0.998)
DROP_ALL = 0.1
AID_WEIGHT = 0.3


@dataclass(frozen=True)
class PriorData:
    """What the prior learns from.

    Attributes:
        tokens: of the creatures, `[N, 16, D]`.
        parts: tokens of their parts, `[N, 5, 16, D]`.
        empty: tokens of the white picture, `[1, 16, D]`.
        part_labels: `[N, 5, A]`, -100 = not seen.
        part_kinds: `[N, 5]`, -1 = no part.
    """

    tokens: Tensor
    parts: Tensor
    empty: Tensor
    part_labels: Tensor
    part_kinds: Tensor


def train_prior(run: Run, data: PriorData, reading: Reading, aid: bool = True) -> IPPrior:
    """Train the prior.

    Args:
        aid: add the cross-entropy of the given parts' attributes, read off the estimate of the clean tokens
            by the encoder's training head. It fades to nothing over the run, and departs from the paper.
    """
    torch.manual_seed(run.seed)
    model = IPPrior(**PRIOR)
    model.reset_parameters()
    model.to(run.device)
    reading = reading.to(run.device).requires_grad_(False)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        clean, parts, targets = (x.to(run.device) for x in draw_batch(data, generator))
        t = logit_normal_time(STAGE.batch, generator).to(run.device)
        noise = torch.randn(clean.shape, generator=generator).to(run.device)
        x = interpolate(clean, noise, t)
        with run.autocast():
            velocity = model(x, t, parts).float()
        loss = (noise - clean - velocity).square().mean()
        if not aid:
            return loss
        estimate = x - t[:, None, None] * velocity
        fade = 0.5 * (1 + math.cos(math.pi * step / STAGE.steps))
        return loss + AID_WEIGHT * fade * attribute_loss(reading.attributes(estimate.flatten(1)), targets)

    return train_stage(run, STAGE, model, loss_at)


def draw_batch(data: PriorData, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Clean tokens, part slots, and the attributes that the given parts show (-100 elsewhere).

    All samples of a batch have the same number of slots, 1 to 5; each fills a random number of them, the
    others are empty. One sample in ten has no part at all.
    """
    rows = torch.randint(len(data.tokens), (STAGE.batch,), generator=generator)
    slots = int(torch.randint(1, PART_VIEWS + 1, (1,), generator=generator))
    filled = 1 + (torch.rand(STAGE.batch, generator=generator) * slots).long()
    filled[torch.rand(STAGE.batch, generator=generator) < DROP_ALL] = 0
    order = torch.rand(STAGE.batch, PART_VIEWS, generator=generator).argsort(dim=1)[:, :slots]
    given = (torch.arange(slots) < filled[:, None]) & (data.part_kinds[rows[:, None], order] != NO_PART)
    parts = torch.where(given[:, :, None, None], data.parts[rows[:, None], order], data.empty)
    seen = data.part_labels[rows[:, None], order].masked_fill(~given[:, :, None], -100)
    return data.tokens[rows], parts.flatten(1, 2), seen.amax(dim=1)
