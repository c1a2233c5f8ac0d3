"""Training the renderer: UNet, text encoders and image cross-attention together."""
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
# The negative branch of guidance has neither tokens nor words, or a negative prompt without tokens, or the
# same tokens as the other branch without words: the UNet must know all three.
DROP_BOTH, DROP_TOKENS, DROP_TEXT = 0.08, 0.05, 0.10


@dataclass(frozen=True)
class RendererData:
    """What the UNet learns from.

    Attributes:
        latents: unscaled, `[N, 4, 16, 16]`.
        tokens: of the same creatures, `[N, 16, D]`.
        uncond: tokens of the negative branch, `[1, 16, D]`.
    """

    latents: Tensor
    tokens: Tensor
    uncond: Tensor


def train_unet(run: Run, data: RendererData) -> Renderer:
    """Train the renderer to predict v from noisy latents, captions and tokens."""
    torch.manual_seed(run.seed)
    model = Renderer().to(run.device)
    schedule = noise_schedule(PREDICTION)
    density = timestep_density(schedule)
    # The data set holds no creatures, which captions are made from; but they follow from seed and number.
    creatures = [training_creature(run.seed, index) for index in range(len(data.tokens))]

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(creatures), (STAGE.batch,), generator=generator)
        # A new caption each time a creature is seen, as its words are drawn by the step.
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
    """How often each timestep is trained, `[1000]`: evenly, but more rarely where hardly any noise is left.

    An error of v weighs SNR + 1 times as much as the same error of the clean latents. Drawn like this, it
    weighs `MOST_SNR` + 1 times as much at most, in the spirit of min-SNR weighting (arXiv 2303.09556).
    """
    # What could be learned beyond that is finer than what the latents hold.
    signal = schedule.alphas_cumprod
    return ((MOST_SNR + 1) * (1 - signal)).clamp(max=1)


def noisy_tokens(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens with noise of random strength, so that the UNet tolerates small errors of a prior."""
    strength = TOKEN_NOISE * torch.rand(len(tokens), 1, 1, generator=generator)
    return tokens + strength * torch.randn(tokens.shape, generator=generator)


def drop_conditions(
    data: RendererData, tokens: Tensor, captions: list[str], generator: torch.Generator
) -> tuple[Tensor, list[str]]:
    """Leave out tokens, words or both now and then, so that guidance has a negative branch."""
    # One number decides: below 0.08 both, up to 0.13 the tokens, above 0.9 the words.
    draw = torch.rand(len(tokens), generator=generator)
    no_tokens = draw < DROP_BOTH + DROP_TOKENS
    no_text = (draw < DROP_BOTH) | (draw > 1 - DROP_TEXT)
    tokens = torch.where(no_tokens[:, None, None], data.uncond, tokens)
    return tokens, ["" if empty else text for text, empty in zip(captions, no_text.tolist(), strict=True)]
