"""A UNet of SDXL's structure, its text encoders and image cross-attention, trained together."""
from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from ...adapter import ImageCrossAttention
from ...training.image_prompt import attend_to_images, crossing_widths, noise_schedule
from ..creature import caption
from ..sizes import (
    LATENT_SCALE,
    PICTURE_SIZE,
    TEXT_G,
    TEXT_L,
    TIME_ID_DIM,
    TIME_IDS,
    TOKEN_DIM,
    UNET_CHANNELS,
    UNET_DEPTHS,
    UNET_HEAD_DIM,
)
from ..text import TextEncoders
from .data import training_creature
from .stage import Run, Stage, train_stage

STAGE = Stage("unet", steps=12500, batch=40, learning_rate=1e-3, warmup=200, decay=0.28)
MOST_SNR = 5.0
PREDICTION = "v_prediction"
TOKEN_NOISE = 0.4
DROP_BOTH, DROP_TOKENS, DROP_TEXT = 0.08, 0.05, 0.10


def build_unet() -> UNet2DConditionModel:
    """SDXL's block structure at miniature widths."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=UNET_CHANNELS,
        layers_per_block=1,
        norm_num_groups=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=tuple(max(1, depth) for depth in UNET_DEPTHS),
        attention_head_dim=tuple(width // UNET_HEAD_DIM for width in UNET_CHANNELS),
        use_linear_projection=True,
        cross_attention_dim=TEXT_L["hidden_size"] + TEXT_G["hidden_size"],
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_DIM,
        projection_class_embeddings_input_dim=TEXT_G["hidden_size"] + TIME_IDS * TIME_ID_DIM,
    )


class Renderer(nn.Module):
    """The UNet, the text encoders and the image cross-attention, trained as one."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet()
        self.text = TextEncoders()
        self.image = ImageCrossAttention(TOKEN_DIM, crossing_widths(self.unet))
        attend_to_images(self.unet, self.image)

    def forward(
        self, latents: Tensor, timesteps: Tensor, captions: list[str], image_tokens: Tensor
    ) -> Tensor:
        """Predicted v `[B, 4, 16, 16]`."""
        return self.predict(latents, timesteps, self.text(captions), image_tokens)

    def predict(
        self, latents: Tensor, timesteps: Tensor, words: tuple[Tensor, Tensor], image_tokens: Tensor,
        image_weight: float = 1.0,
    ) -> Tensor:
        """Predicted v of captions that are encoded already: `words` holds their context and pooled vector."""
        context, pooled = words
        size = [PICTURE_SIZE, PICTURE_SIZE, 0, 0, PICTURE_SIZE, PICTURE_SIZE]
        time_ids = torch.tensor(size, device=latents.device).expand(len(latents), -1)
        return self.unet(
            latents, timesteps, context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
            cross_attention_kwargs={"image_tokens": image_tokens, "image_weight": image_weight},
        ).sample


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
