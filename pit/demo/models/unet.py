"""A UNet with SDXL's structure at miniature widths, its text encoders and its image cross-attention."""
from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ...ip_adapter.attention import ImageCrossAttention
from ...piece_it_together.ip_lora.image_prompt import attend_to_images, crossing_widths
from .sizes import (
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
from .text import TextEncoders

PREDICTION = "v_prediction"


def build_unet() -> UNet2DConditionModel:
    """SDXL's block structure at miniature widths, with random weights."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=UNET_CHANNELS,
        layers_per_block=1,
        norm_num_groups=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        # diffusers requires a depth of at least 1, even for blocks without attention.
        transformer_layers_per_block=tuple(max(1, depth) for depth in UNET_DEPTHS),
        # Despite its name, diffusers takes this for the number of heads.
        attention_head_dim=tuple(width // UNET_HEAD_DIM for width in UNET_CHANNELS),
        use_linear_projection=True,
        cross_attention_dim=TEXT_L["hidden_size"] + TEXT_G["hidden_size"],
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_DIM,
        projection_class_embeddings_input_dim=TEXT_G["hidden_size"] + TIME_IDS * TIME_ID_DIM,
    )


class Renderer(nn.Module):
    """The UNet, the text encoders and the image cross-attention, which are trained as one model."""

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
        """Predicted v for encoded captions: `words` holds their context and their pooled vector."""
        context, pooled = words
        # Size, crop and target size: all training pictures are whole and of one size.
        size = [PICTURE_SIZE, PICTURE_SIZE, 0, 0, PICTURE_SIZE, PICTURE_SIZE]
        time_ids = torch.tensor(size, device=latents.device).expand(len(latents), -1)
        return self.unet(
            latents, timesteps, context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
            cross_attention_kwargs={"image_tokens": image_tokens, "image_weight": image_weight},
        ).sample
