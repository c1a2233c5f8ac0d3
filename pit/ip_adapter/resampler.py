"""The perceiver resampler of IP-Adapter-plus: image features in, 16 IP+ tokens out (arXiv 2308.06721)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

TOKENS_PER_PICTURE = 16
"""Number of tokens that IP-Adapter-plus makes of a picture: the published number of queries."""


class PerceiverAttention(nn.Module):
    """The latents look at the image features and at themselves."""

    def __init__(self, dim: int, dim_head: int, heads: int, operations, **factory):
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.to_q = operations.Linear(dim, inner, bias=False, **factory)
        self.to_kv = operations.Linear(dim, 2 * inner, bias=False, **factory)
        self.to_out = operations.Linear(inner, dim, bias=False, **factory)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        # The latents are among the keys, too, as in Flamingo's resampler (arXiv 2204.14198), so that they see
        # each other.
        features, latents = self.norm1(features), self.norm2(latents)
        keys, values = self.to_kv(torch.cat([features, latents], dim=1)).chunk(2, dim=-1)
        projected = (self.to_q(latents), keys, values)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        # The published code multiplies q and k by dim_head^-0.25 each: together, this attention's own scale.
        return self.to_out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


def feed_forward(dim: int, mult: int, operations, **factory) -> nn.Sequential:
    """LayerNorm, then a two-layer perceptron with the exact GELU, no biases."""
    return nn.Sequential(
        operations.LayerNorm(dim, **factory),
        operations.Linear(dim, dim * mult, bias=False, **factory),
        nn.GELU(),
        operations.Linear(dim * mult, dim, bias=False, **factory),
    )


class Resampler(nn.Module):
    """`image_proj` of the published IP-Adapter-plus files; state-dict keys as there."""

    def __init__(
        self, dim: int = 1280, depth: int = 4, dim_head: int = 64, heads: int = 20,
        num_queries: int = TOKENS_PER_PICTURE, embedding_dim: int = 1280, output_dim: int = 2048,
        ff_mult: int = 4, operations=nn, *, device=None, dtype=None,
    ):
        """
        Args:
            dim: width of the latents.
            embedding_dim: width E of the image features.
            output_dim: width of the tokens.
            operations: namespace of `Linear` and `LayerNorm` (ComfyUI's casting layers work too).
        """
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        # Scaled to a length of about 1, as published, for training from scratch; files overwrite it.
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim, **factory) / dim**0.5)
        self.proj_in = operations.Linear(embedding_dim, dim, **factory)
        self.proj_out = operations.Linear(dim, output_dim, **factory)
        self.norm_out = operations.LayerNorm(output_dim, **factory)
        self.layers = nn.ModuleList(
            nn.ModuleList([
                PerceiverAttention(dim, dim_head, heads, operations, **factory),
                feed_forward(dim, ff_mult, operations, **factory),
            ])
            for _ in range(depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Tokens of pictures: penultimate image features `[B, N, E]` -> `[B, num_queries, output_dim]`."""
        # The latents are a bare parameter, which casting layers do not convert by themselves.
        latents = self.latents.to(features).expand(features.shape[0], -1, -1)
        features = self.proj_in(features)
        for attention, mlp in self.layers:
            latents = latents + attention(features, latents)
            latents = latents + mlp(latents)
        # The last step is a layer norm, so tokens have the same scale whatever the picture: flow matching
        # between them and noise of one scale relies on it.
        return self.norm_out(self.proj_out(latents))

