"""The cross-attention of IP-Adapter-plus: its weights, its mathematics, its tokens for a sampler's batch.

IP-Adapter (arXiv 2308.06721), section 3.2: decoupled cross-attention. Layout of `ip-adapter-plus_sdxl_vit-h`.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..unet import Attention, multi_head_attention
from .resampler import Resampler


class ImageKeyValue(nn.Module):
    """Keys and values of the image tokens for one cross-attention layer."""

    def __init__(self, token_dim: int, inner_dim: int, operations=nn, **factory):
        super().__init__()
        self.to_k = operations.Linear(token_dim, inner_dim, bias=False, **factory)
        self.to_v = operations.Linear(token_dim, inner_dim, bias=False, **factory)


class ImageCrossAttention(nn.ModuleList):
    """One `ImageKeyValue` per cross-attention layer, ordered as in adapter files (`attention_layers`)."""

    def __init__(self, token_dim: int, inner_dims: Sequence[int], operations=nn, *, device=None, dtype=None):
        factory = {"device": device, "dtype": dtype}
        super().__init__(ImageKeyValue(token_dim, dim, operations, **factory) for dim in inner_dims)
        self.token_dim = token_dim
        self.inner_dims = list(inner_dims)


class IPAdapterPlus(nn.Module):
    """A resampler and the cross-attention weights that read its tokens."""

    def __init__(self, resampler: Resampler, cross_attention: ImageCrossAttention):
        super().__init__()
        self.resampler = resampler
        self.cross_attention = cross_attention


def attend_to_tokens(layer: ImageKeyValue, q: Tensor, tokens: Tensor, scale: Tensor | float, heads: int,
                     attention: Attention = multi_head_attention) -> Tensor:
    """The image half of decoupled cross-attention, to be added to the text half before `to_out`.

    Args:
        q: queries of the text attention `[B, N, C]`.
        tokens: IP+ tokens `[B, 16, D]`.
        scale: weight of the image half; a number, or a tensor that broadcasts to `[B, N, C]`.
    Returns:
        `[B, N, C]` in the dtype of q.
    """
    # Two attentions are added instead of one over both contexts, whose softmax would let words and picture
    # compete. A scale in float32 would widen the result, and with it all that follows in the UNet.
    tokens = tokens.to(q)
    return (attention(q, layer.to_k(tokens), layer.to_v(tokens), heads) * scale).to(q.dtype)


def tokens_for_rows(tokens: Tensor, uncond_tokens: Tensor, negative: Tensor, images: Tensor) -> Tensor:
    """Tokens for a sampler's batch: those of its concept for each image, or those of the negative prompt.

    Args:
        tokens: one set per concept `[M, 16, D]`; image i takes concept i modulo M, as where ComfyUI itself
            repeats a batch.
        uncond_tokens: what the negative prompts take, `[1, 16, D]` or `[M, 16, D]`.
        negative: whether each row of the batch belongs to a negative prompt `[B]`.
        images: the image that each row belongs to `[B]`.
    Returns:
        `[B, 16, D]`.
    """
    # Chosen by index on the device: a sampler puts the rows in any order, and reading it back would make the
    # CPU wait for the GPU.
    sets = torch.cat([tokens, uncond_tokens])
    of_negatives = len(tokens) + images % len(uncond_tokens)
    return sets[torch.where(negative.bool(), of_negatives, images % len(tokens))]
