"""What a training of Parts2Whole starts from: a trained one, or a new one on a Stable Diffusion 1.5."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from ...ip_adapter.attention import ImageCrossAttention
from ..files import Parts2Whole
from ..pose import CHANNELS, PoseGuider
from ..unets import blocks_of, empty_reference_unet, widths_of


def new_parts(
    unet: UNet2DConditionModel, seed: int, token_dim: int | None = None, channels: Sequence[int] = CHANNELS
) -> Parts2Whole:
    """Parts2Whole as its published training begins, from the denoising UNet of a Stable Diffusion 1.5.

    The reference UNet is a copy of it, the image tokens are read as words are, and the pose guider, whose
    inner weights follow from the seed, changes nothing yet.

    Args:
        token_dim: width of image tokens that are not as wide as words; they change nothing yet, either.
        channels: of the pose guider.
    """
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    reference_unet, state = empty_reference_unet(config), unet.state_dict()
    copies = {key: state[key].clone() for key in reference_unet.state_dict()}
    reference_unet.load_state_dict(copies, assign=True)
    # The global generator is put back, since others use it, too; asking for devices would start CUDA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guider = new_guider(unet.conv_in.out_channels, channels)
        new = token_dim not in (None, unet.config.cross_attention_dim)
        decoupled = silent_attention(token_dim, widths_of(unet)) if new else decoupled_of(unet)
    return Parts2Whole(unet, reference_unet, guider, decoupled)


def new_guider(output_dim: int, channels: Sequence[int] = CHANNELS) -> PoseGuider:
    """A pose guider that changes nothing yet, but whose last layer sees the pose (He et al., 2015).

    With torch's own weights a third of the signal passes each layer, and behind nine of them half precision
    hardly tells one pose from another.
    """
    guider = PoseGuider(output_dim, channels)
    for layer in (guider.conv_in, *guider.blocks):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return guider


def silent_attention(token_dim: int, widths: Sequence[int]) -> ImageCrossAttention:
    """Decoupled attention to which image tokens say nothing; its keys are random."""
    attention = ImageCrossAttention(token_dim, widths)
    for layer in attention:
        nn.init.zeros_(layer.to_v.weight)
    return attention


@torch.no_grad()
def decoupled_of(unet: UNet2DConditionModel) -> ImageCrossAttention:
    """Decoupled attention that reads image tokens as the UNet reads words."""
    # Without numbers at first, which would be drawn from the global generator.
    attention = ImageCrossAttention(unet.config.cross_attention_dim, widths_of(unet), device="meta")
    attention = attention.to_empty(device="cpu")
    for layer, block in zip(attention, blocks_of(unet), strict=True):
        words: nn.Module = unet.get_submodule(f"{block}.attn2")
        layer.to_k.weight.copy_(words.to_k.weight)
        layer.to_v.weight.copy_(words.to_v.weight)
    return attention
