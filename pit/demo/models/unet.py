"""UNets with the structures of SDXL and of SD 1.5 at miniature widths, and what conditions them."""
from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ...ip_adapter.attention import ImageCrossAttention, ImageKeyValue, attend_to_tokens
from ...ip_adapter.projection import ImageProjection
from ...piece_it_together.ip_lora.image_prompt import crossing_names, crossing_widths
from ...unet import multi_head_attention
from .sizes import (
    BASE_TOKENS,
    EMBEDDING_DIM,
    LATENT_CHANNELS,
    LATENT_SIZE,
    PICTURE_SIZE,
    SD15_CHANNELS,
    SD15_HEAD_DIM,
    TEXT_G,
    TEXT_L,
    TEXT_SD15,
    TIME_ID_DIM,
    TIME_IDS,
    TOKEN_DIM,
    UNET_CHANNELS,
    UNET_DEPTHS,
    UNET_HEAD_DIM,
)
from .text import TextEncoder, TextEncoders

PREDICTION = "v_prediction"


def build_unet() -> UNet2DConditionModel:
    """SDXL's block structure at miniature widths, with random weights."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
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


def build_sd15_unet(in_channels: int = LATENT_CHANNELS) -> UNet2DConditionModel:
    """SD 1.5's block structure at miniature widths and with one level less, with random weights."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        block_out_channels=SD15_CHANNELS,
        layers_per_block=1,
        norm_num_groups=32,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=tuple(width // SD15_HEAD_DIM for width in SD15_CHANNELS),
        cross_attention_dim=TEXT_SD15["hidden_size"],
    )


class TwoAdapters:
    """An attention processor for diffusers: words, and beside them the tokens of one of two IP-Adapters."""

    def __init__(self, plus: ImageKeyValue | None, base: ImageKeyValue | None):
        self.plus, self.base = plus, base

    def __call__(
        self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None, image_tokens: Tensor | None = None, base_tokens: Tensor | None = None,
        image_weight: float = 1.0,
    ) -> Tensor:
        # Only what SDXL needs: its attention has no mask, group norm, dropout or residual of its own.
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.to_q(hidden_states)
        out = multi_head_attention(q, attn.to_k(context), attn.to_v(context), attn.heads)
        if self.plus is not None:
            # The first rows of the batch have tokens of one adapter, the last ones those of the other.
            pairs = [(self.plus, image_tokens), (self.base, base_tokens)]
            pairs = [(layer, tokens) for layer, tokens in pairs if tokens is not None]
            rows = q.split([len(tokens) for _, tokens in pairs])
            out = out + torch.cat([
                attend_to_tokens(layer, row, tokens, image_weight, attn.heads)
                for row, (layer, tokens) in zip(rows, pairs, strict=True)
            ])
        return attn.to_out[0](out)


class Renderer(nn.Module):
    """The UNet, the text encoders and the image cross-attention of both adapters, trained as one model."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet()
        self.text = TextEncoders()
        names, widths = crossing_names(self.unet), crossing_widths(self.unet)
        self.image = ImageCrossAttention(TOKEN_DIM, widths)
        self.base_image = ImageCrossAttention(TOKEN_DIM, widths)
        self.base_projection = ImageProjection(EMBEDDING_DIM, TOKEN_DIM, BASE_TOKENS)
        layers = dict(zip(names, zip(self.image, self.base_image, strict=True), strict=True))
        self.unet.set_attn_processor({
            name: TwoAdapters(*layers.get(name.removesuffix(".processor"), (None, None)))
            for name in self.unet.attn_processors
        })

    def predict(
        self, latents: Tensor, timesteps: Tensor, words: tuple[Tensor, Tensor],
        image_tokens: Tensor | None = None, base_tokens: Tensor | None = None, image_weight: float = 1.0,
    ) -> Tensor:
        """Predicted v `[B, 12, h, w]` for encoded captions and the tokens of one adapter, or of both.

        Args:
            words: their context and their pooled vector.
            image_tokens: IP+ tokens of the first rows, `[M, T, D]`.
            base_tokens: tokens of the base adapter for the other rows, `[B - M, 4, D]`.
        """
        context, pooled = words
        # Size, crop and target size: all training pictures are whole and of one size.
        size = [PICTURE_SIZE, PICTURE_SIZE, 0, 0, PICTURE_SIZE, PICTURE_SIZE]
        time_ids = torch.tensor(size, device=latents.device).expand(len(latents), -1)
        images = {"image_tokens": image_tokens, "base_tokens": base_tokens, "image_weight": image_weight}
        return self.unet(
            latents, timesteps, context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}, cross_attention_kwargs=images,
        ).sample


class TextRenderer(nn.Module):
    """The base of SD 1.5's structure: a UNet and one text encoder, trained as one model."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_sd15_unet()
        self.text = TextEncoder()

    def predict(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Predicted noise `[B, 12, h, w]` for encoded captions `[B, 77, C]`."""
        return self.unet(latents, timesteps, context).sample
