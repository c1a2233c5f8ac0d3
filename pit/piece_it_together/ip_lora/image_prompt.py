"""diffusers' UNet of SDXL's kind with the image cross-attention of an IP-Adapter, for training.

ComfyUI's own model renders, with the same weights. IP-Adapter (arXiv 2308.06721), section 3.2.
"""
from __future__ import annotations

from collections.abc import Mapping

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ...ip_adapter.attention import ImageCrossAttention, ImageKeyValue, attend_to_tokens
from ...training import unets
from ...unet import multi_head_attention


class DecoupledAttention:
    """An attention processor for diffusers: text attention and, where there is a `layer`, image attention."""

    def __init__(self, layer: ImageKeyValue | None):
        self.layer = layer

    def __call__(
        self, attn: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None, image_tokens: Tensor | None = None, image_weight: float = 1.0,
    ) -> Tensor:
        # Only what SDXL needs: its attention has no mask, group norm, dropout or residual of its own.
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.to_q(hidden_states)
        out = multi_head_attention(q, attn.to_k(context), attn.to_v(context), attn.heads)
        if self.layer is not None:
            out = out + attend_to_tokens(self.layer, q, image_tokens, image_weight, attn.heads)
        return attn.to_out[0](out)


def crossing_names(unet: UNet2DConditionModel) -> list[str]:
    """The cross-attention layers in the order of IP-Adapter files: down, up, middle."""
    # Such files number the layers as diffusers lists them, so its own list is the order.
    return [name.removesuffix(".processor") for name in unet.attn_processors if ".attn2." in name]


def crossing_widths(unet: UNet2DConditionModel) -> list[int]:
    """The widths of these layers."""
    return [unet.get_submodule(name).to_q.out_features for name in crossing_names(unet)]


def attend_to_images(unet: UNet2DConditionModel, image: ImageCrossAttention) -> None:
    """Let every cross-attention of a UNet also attend to image tokens, with the weights of an adapter.

    Raises:
        ValueError: the adapter is for a UNet with other layers.
    """
    names, widths = crossing_names(unet), crossing_widths(unet)
    if widths != image.inner_dims:
        raise ValueError(
            f"Expected a model with {len(image.inner_dims)} cross-attention layers of the widths "
            f"{sorted(set(image.inner_dims))}, as the IP-Adapter has, got {len(widths)} of the widths "
            f"{sorted(set(widths))}. Use a model of the kind that the IP-Adapter was made for."
        )
    layers = dict(zip(names, image, strict=True))
    unet.set_attn_processor({
        name: DecoupledAttention(layers.get(name.removesuffix(".processor"))) for name in unet.attn_processors
    })


class ImagePromptUNet(nn.Module):
    """A UNet with the image half of its cross-attention."""

    def __init__(self, unet: UNet2DConditionModel, image: ImageCrossAttention):
        super().__init__()
        self.unet, self.image = unet, image
        attend_to_images(unet, image)

    def forward(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor, time_ids: Tensor,
        tokens: Tensor, image_weight: float = 1.0,
    ) -> Tensor:
        """What the UNet predicts from noisy latents, in their shape.

        Args:
            latents: `[B, 4, h, w]`; timesteps: `[B]`.
            context: text `[B, N, C]`; pooled: `[B, P]`.
            time_ids: height and width before and after cropping, as SDXL reads them, `[B, 6]`.
            tokens: IP+ tokens `[B, 16, D]`.
        """
        return self.unet(
            latents, timesteps, context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
            cross_attention_kwargs={"image_tokens": tokens, "image_weight": image_weight},
        ).sample


def unet_of_sizes(config: Mapping[str, object]) -> UNet2DConditionModel:
    """diffusers' UNet of SDXL's kind, see `pit.training.unets.unet_of_sizes`.

    Raises:
        ValueError: the UNet is not of SDXL's kind.
    """
    if not unets.like_sdxl(config):
        raise ValueError(
            "Expected a model of SDXL's kind for the IP-Adapter, got one of another structure. "
            "Use an SDXL model."
        )
    return unets.unet_of_sizes(config)
