"""A UNet of SDXL's structure, its text encoders and image cross-attention, trained together."""
from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional

from ...training.denoising import noise_schedule
from ..drawing.creature import caption
from ..models.sizes import LATENT_SCALE
from ..models.unet import PREDICTION, Renderer
from .data import training_creature
from .stage import Run, Stage, train_stage

STAGE = Stage("unet", steps=12500, batch=40, learning_rate=1e-3, warmup=200, decay=0.28)
MOST_SNR = 5.0
TOKEN_NOISE = 0.4
DROP_BOTH, DROP_TOKENS, DROP_TEXT = 0.08, 0.05, 0.10


@dataclass(frozen=True)
class RenderingData:
    """What the UNet learns from.

    Attributes:
        latents: unscaled, `[N, 4, 16, 16]`.
        tokens: `[N, 16, D]`.
        uncond: tokens of the unconditional branch, `[1, 16, D]`.
    """

    latents: Tensor
    tokens: Tensor
    uncond: Tensor


def train_unet(run: Run, data: RenderingData) -> Renderer:
    torch.manual_seed(run.seed)
    model = Renderer().to(run.device)
    schedule = noise_schedule(PREDICTION)
    density = timestep_density(schedule)
    creatures = [training_creature(run.seed, index) for index in range(len(data.tokens))]

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(creatures), (STAGE.batch,), generator=generator)
        words = random.Random(f"{run.seed}/{step}")
        captions = [caption(creatures[row], words) for row in rows.tolist()]
        tokens = noisy_tokens(data.tokens[rows], generator)
        tokens, captions = drop_conditions(data, tokens, captions, generator)
        latents = data.latents[rows] * LATENT_SCALE
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.multinomial(density, STAGE.batch, replacement=True, generator=generator)
        noisy = schedule.add_noise(latents, noise, timesteps).to(run.device)
        wanted = schedule.get_velocity(latents, noise, timesteps).to(run.device)
        with run.autocast():
            predicted = model(noisy, timesteps.to(run.device), captions, tokens.to(run.device))
        return functional.mse_loss(predicted.float(), wanted)

    return train_stage(run, STAGE, model, loss_at)


def timestep_density(schedule: DDPMScheduler) -> Tensor:
    """How often each timestep is trained: evenly, but less where hardly any noise is left.

    The error of v counts SNR + 1 times that of the clean latents; drawn like this, no more than
    `MOST_SNR` + 1 times, in the spirit of min-SNR weighting (arXiv 2303.09556).
    """
    signal = schedule.alphas_cumprod
    return ((MOST_SNR + 1) * (1 - signal)).clamp(max=1)


def noisy_tokens(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens with noise of a random strength, so that the UNet forgives what a prior gets slightly wrong."""
    strength = TOKEN_NOISE * torch.rand(len(tokens), 1, 1, generator=generator)
    return tokens + strength * torch.randn(tokens.shape, generator=generator)


def drop_conditions(
    data: RenderingData, tokens: Tensor, captions: list[str], generator: torch.Generator
) -> tuple[Tensor, list[str]]:
    """Leave out tokens, words or both now and then, so that guidance has an unconditional branch."""
    draw = torch.rand(len(tokens), generator=generator)
    no_tokens = draw < DROP_BOTH + DROP_TOKENS
    no_text = (draw < DROP_BOTH) | (draw > 1 - DROP_TEXT)
    tokens = torch.where(no_tokens[:, None, None], data.uncond, tokens)
    return tokens, ["" if empty else text for text, empty in zip(captions, no_text.tolist(), strict=True)]
