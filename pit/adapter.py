"""IP-Adapter-plus: its weights, its attention, and which weight belongs to which layer of a UNet.

IP-Adapter (arXiv 2308.06721), section 3.2: decoupled cross-attention. Layout of `ip-adapter-plus_sdxl_vit-h`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .resampler import Resampler

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]


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


def multi_head_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention on `[B, N, heads * head_dim]`; ComfyUI's `optimized_attention` has the same signature."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


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
        ValueError: the latent batch is no multiple of the number of concepts.
    """
    images = batch // len(branches)
    if images % tokens.shape[0]:
        raise ValueError(
            f"Apply IP+ Tokens got {tokens.shape[0]} concepts, but the latent batch holds {images} images. "
            f"Set batch_size of the empty latent to {tokens.shape[0]} (or a multiple), or pass one concept."
        )
    chunks = {
        0: tokens.repeat(images // tokens.shape[0], 1, 1),
        1: uncond_tokens.repeat(images // uncond_tokens.shape[0], 1, 1),
    }
    return torch.cat([chunks[branch] for branch in branches])


class AttentionLayer(NamedTuple):
    """One cross-attention of a UNet in the original (non-diffusers) layout."""

    module: str
    block: str
    number: int
    index: int
    inner_dim: int


def attention_layers(unet: nn.Module) -> list[AttentionLayer]:
    """The cross-attention layers in the order in which IP-Adapter files number them.

    diffusers lists the down blocks, then the up blocks, then the middle block; layer i here has the weights
    `{2 i + 1}.to_k_ip`. `block`, `number` and `index` are the key under which ComfyUI looks for a patch; for
    the middle block that number is 0, whatever the place of the transformer inside it.

    Args:
        unet: a model with `input_blocks`, `middle_block` and `output_blocks`.
    """
    def walk(block: str, number: int, path: str, modules: nn.Module) -> Iterator[AttentionLayer]:
        for place, module in enumerate(modules):
            for index, transformer in enumerate(getattr(module, "transformer_blocks", ())):
                name = f"{path}.{place}.transformer_blocks.{index}.attn2"
                yield AttentionLayer(name, block, number, index, transformer.attn2.to_q.weight.shape[0])

    layers = []
    for block in ("input", "output"):
        for number, modules in enumerate(getattr(unet, f"{block}_blocks")):
            layers += walk(block, number, f"{block}_blocks.{number}", modules)
    return layers + list(walk("middle", 0, "middle_block", unet.middle_block))
