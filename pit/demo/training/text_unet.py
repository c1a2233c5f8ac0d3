"""Training the base of SD 1.5's structure: a UNet and its text encoder, from captions that name much."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...training.denoising import NoiseSchedule, noise_schedule
from ..drawing.captions import caption, plain_caption
from ..drawing.composition import Composition
from ..models.unet import TextRenderer
from .data import ALONE, EMPTY, POSED, THINGS, WITH_THINGS
from .stage import Run, Stage, train_stage
from .truth import weights_by_kind

STAGE = Stage("text_unet", steps=9000, batch=40, learning_rate=1e-3, warmup=200, decay=0.4)
# Mostly what is hard to draw: small things, and creatures of half the size beside them.
CLEAN_SHARE = 0.15
SHARES = {ALONE: 0.20, WITH_THINGS: 0.30, POSED: 0.15, THINGS: 0.30, EMPTY: 0.05}  # of the other rows
DROP_TEXT = 0.10
PLAIN_SHARE = 0.1  # of the captions that say no more than "a creature"
MOST_PARTS = 9
# The error of the noise says little about the picture where most is noise, and much about what cannot be
# seen where little is: weighted as the error of v would be, within these bounds (arXiv 2303.09556).
MOST_SNR, MOST_WEIGHT = 5.0, 10.0


@dataclass(frozen=True)
class TextData:
    """What it learns from, N rows of each.

    Attributes:
        pictures, clean: latents `[N, 12, 16, 16]`.
        compositions, clean_compositions: what they show.
        kinds: of the pictures, indices into `KINDS`, `[N]`.
        importance: how much the error counts at each place of the pictures, `[N, 16, 16]`.
    """

    pictures: Tensor
    clean: Tensor
    compositions: list[Composition]
    clean_compositions: list[Composition]
    kinds: Tensor
    importance: Tensor


def train_text_unet(run: Run, data: TextData) -> TextRenderer:
    """Train the base to predict the noise from noisy latents and captions."""
    torch.manual_seed(run.seed)
    model = TextRenderer()
    model.unet.to(memory_format=torch.channels_last)
    model.to(run.device)
    schedule = noise_schedule()
    weights, often = noise_weights(schedule), weights_by_kind(data.kinds, SHARES)
    predict = torch.compile(model.predict, dynamic=False) if run.compiled else model.predict

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = draw_rows(data, often, random.Random(f"{run.seed}/{step}"), generator)
        return noise_loss(
            run, schedule, weights, rows.latents, rows.importance, generator,
            lambda noisy, timesteps: predict(noisy, timesteps, model.text(rows.captions)),
        )

    return train_stage(run, STAGE, model, loss_at)


def noise_loss(
    run: Run, schedule: NoiseSchedule, weights: Tensor, latents: Tensor, importance: Tensor,
    generator: torch.Generator, predict: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The weighted squared error of the noise that `predict(noisy, timesteps)` finds in latents.

    Args:
        weights: see `noise_weights`.
        latents: without noise, `[B, 12, 16, 16]`.
        importance: how much the error counts at each place, `[B, 16, 16]`.
    """
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(len(weights), (len(noise),), generator=generator)
    noisy = schedule.add_noise(latents, noise, timesteps)
    noisy = noisy.to(run.device, memory_format=torch.channels_last)
    with run.autocast():
        found = predict(noisy, timesteps.to(run.device)).float()
    errors = (found - noise.to(run.device)).square().mean(dim=1)
    importance = weights[timesteps, None, None] * importance
    return (importance.to(errors) * errors).mean()


def noise_weights(schedule: NoiseSchedule) -> Tensor:
    """What the error of the noise counts at each timestep, `[1000]`."""
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    return ((snr + 1) / snr).clamp(max=MOST_WEIGHT) * ((MOST_SNR + 1) / (snr + 1)).clamp(max=1)


class Rows(NamedTuple):
    """Latents of B pictures `[B, 12, 16, 16]`, their captions, and the importance of places `[B, 16, 16]`."""

    latents: Tensor
    captions: list[str]
    importance: Tensor


def draw_rows(data: TextData, often: Tensor, words: random.Random, generator: torch.Generator) -> Rows:
    """Random pictures, with captions that are new at each step."""
    rows = torch.multinomial(often, STAGE.batch, replacement=True, generator=generator)
    clean = torch.rand(STAGE.batch, generator=generator) < CLEAN_SHARE
    latents = torch.where(clean[:, None, None, None], data.clean[rows], data.pictures[rows]).float()
    shown = [
        (data.clean_compositions if is_clean else data.compositions)[row]
        for row, is_clean in zip(rows.tolist(), clean.tolist(), strict=True)
    ]
    # Nothing stands beside the clean ones.
    importance = data.importance[rows].masked_fill(clean[:, None, None], 1)
    return Rows(latents, [words_for(composition, words) for composition in shown], importance)


def words_for(shown: Composition, words: random.Random) -> str:
    """A caption of up to nine parts, the shortest one, or none."""
    drawn = words.random()
    if drawn < DROP_TEXT:
        return ""
    if drawn < DROP_TEXT + PLAIN_SHARE:
        return plain_caption(shown)
    return caption(shown, words, MOST_PARTS, plain_share=0)
