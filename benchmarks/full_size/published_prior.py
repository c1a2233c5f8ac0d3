"""The published IP-Prior and its sampler once more, straight from the weights of its file.

As in github.com/eladrich/PiT: every token through every layer, float32, two calls at each of 25 Euler steps.
"""
from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


class PublishedPrior:
    """The velocity of the flow.

    Args:
        weights: the content of `prior.ckpt`.
        heads: `num_attention_heads` of `cfg.yaml`.
    """

    def __init__(self, weights: Mapping[str, Tensor], heads: int):
        self.weights, self.heads = weights, heads
        self.layers = sum(key.endswith("attention.wq.weight") for key in weights)

    def __call__(self, x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
        """`x [B, 16, E]`, `t [B]`, `parts [B, 16 P, E]` -> `[B, 16, E]`."""
        h = self.linear("x_embedder", torch.cat([x, parts], dim=1))
        time = self.linear("t_embedder.mlp.0", sinusoids(t))
        time = functional.silu(self.linear("t_embedder.mlp.2", functional.silu(time)))
        turns = rotations(h.shape[1], h.shape[2] // self.heads)
        for number in range(self.layers):
            h = self.block(f"layers.{number}", h, time, turns)
        shift, scale = self.linear("final_layer.adaLN_modulation.1", time)[:, None].chunk(2, dim=-1)
        h = functional.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return self.linear("final_layer.linear", h)[:, :x.shape[1]]

    def block(self, name: str, h: Tensor, time: Tensor, turns: Tensor) -> Tensor:
        """Attention and a gated feed-forward, both modulated by the time."""
        moves = self.linear(f"{name}.adaLN_modulation.1", time)[:, None].chunk(6, dim=-1)
        value = self.norm(f"{name}.attention_norm", h) * (1 + moves[1]) + moves[0]
        h = h + moves[2] * self.attention(f"{name}.attention", value, turns)
        value = self.norm(f"{name}.ffn_norm", h) * (1 + moves[4]) + moves[3]
        gate = functional.silu(self.linear(f"{name}.feed_forward.w1", value))
        value = gate * self.linear(f"{name}.feed_forward.w3", value)
        return h + moves[5] * self.linear(f"{name}.feed_forward.w2", value)

    def attention(self, name: str, value: Tensor, turns: Tensor) -> Tensor:
        """Full attention; queries and keys are normalized over all heads, then turned by their place."""
        q = self.norm(f"{name}.q_norm", self.linear(f"{name}.wq", value))
        k = self.norm(f"{name}.k_norm", self.linear(f"{name}.wk", value))
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (q, k, self.linear(f"{name}.wv", value))
        )
        out = functional.scaled_dot_product_attention(turned(q, turns), turned(k, turns), v)
        return self.linear(f"{name}.wo", out.transpose(1, 2).flatten(-2))

    def linear(self, name: str, value: Tensor) -> Tensor:
        return functional.linear(value, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, value: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(value, value.shape[-1:], weight, bias, 1e-5)


def sinusoids(t: Tensor) -> Tensor:
    """`t [B]` -> `[B, 256]`."""
    angles = t[:, None] * torch.exp(-math.log(10000.0) * torch.arange(128) / 128)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def rotations(length: int, head_dim: int) -> Tensor:
    """Complex numbers of length 1, `[length, head_dim / 2]`."""
    angles = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))
    return torch.polar(torch.ones_like(angles), angles)


def turned(value: Tensor, turns: Tensor) -> Tensor:
    """Neighboring numbers taken as one complex number, and turned."""
    pairs = torch.view_as_complex(value.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def published_sample(
    prior: PublishedPrior, parts: Tensor, empty: Tensor, noise: Tensor, steps: int, guidance: float
) -> Tensor:
    """Concepts `[B, 16, E]` from parts `[B, 16 P, E]`; the other call has empty tokens `[1, 16, E]`."""
    nothing = empty.repeat(len(parts), parts.shape[1] // empty.shape[1], 1)
    x = noise
    for step in range(steps, 0, -1):
        t = torch.full((len(x),), step / steps)
        given, without = prior(x, t, parts), prior(x, t, nothing)
        x = x - (without + guidance * (given - without)) / steps
    return x
