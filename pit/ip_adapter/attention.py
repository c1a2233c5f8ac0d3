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


def tokens_for_batch(tokens: Tensor, uncond_tokens: Tensor, branches: Sequence[int], batch: int) -> Tensor:
    """Lay tokens out for a sampler's batch of conditional and unconditional branches.

    Args:
        tokens: one set per concept `[M, 16, D]`; repeated if the latent batch is a multiple of M.
        uncond_tokens: tokens of the unconditional branch, `[1, 16, D]` or `[M, 16, D]`.
        branches: 0 for each conditional, 1 for each unconditional chunk of the batch, in order.
        batch: total batch size, all branches together.
    Returns:
        `[batch, 16, D]`.
    Raises:
        ValueError: the latent batch is not a multiple of the number of concepts.
    """
    images = batch // len(branches)
    if images % tokens.shape[0]:
        raise ValueError(
            f"Expected a multiple of {tokens.shape[0]} images in the latent batch for {tokens.shape[0]} "
            f"concepts, got {images} images. Set batch_size of the empty latent to {tokens.shape[0]} (or a "
            "multiple), or pass one concept."
        )
    # Repeated as a whole, not one by one: latent i belongs to concept i modulo M, as where ComfyUI itself
    # repeats a batch. Which branch comes first is up to the sampler.
    chunks = {
        0: tokens.repeat(images // tokens.shape[0], 1, 1),
        1: uncond_tokens.repeat(images // uncond_tokens.shape[0], 1, 1),
    }
    return torch.cat([chunks[branch] for branch in branches])
