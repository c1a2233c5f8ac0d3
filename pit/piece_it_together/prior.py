"""The IP-Prior: a flow-matching transformer over IP+ tokens.

Piece it Together (arXiv 2503.10365), section 3: the LLaMA-style DiT of minRF, with the parts as tokens.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..flow.cuda_graph import RecordedStep, recordable, recorded

TIME_FREQUENCIES = 256
ROPE_THETA = 10000.0
# Recording takes two runs to warm up, one to record and two to compare: with few steps it does not pay.
RECORDED_STEPS = 4


def feed_forward_width(hidden_dim: int, multiple_of: int = 256) -> int:
    """Width of the gated feed-forward: two thirds of 4 x hidden, rounded up to a multiple."""
    return multiple_of * math.ceil(int(8 * hidden_dim / 3) / multiple_of)


def time_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of the raw time: `t [B]` in 0..1 -> `[B, 256]`, cosines first."""
    # Of t itself, not of 1000 t as in most diffusion models: published weights were trained on this.
    half = TIME_FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_table(length: int, head_dim: int, device: torch.device | str | None = None) -> Tensor:
    """Rotations for positions 0..length-1: `[length, head_dim / 2, 2]`, cosine and sine, float32."""
    frequencies = ROPE_THETA ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angles = torch.arange(length, device=device).float()[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotary embedding of interleaved pairs: `x [B, H, N, head_dim]`, `table [N, head_dim / 2, 2]`."""
    # Pairs (2j, 2j + 1) as complex numbers, as in LLaMA; other models pair j with j + head_dim / 2, which
    # gives other results with the same weights. In float32: half precision would round the angles away.
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive layer norm: `x [B, N, C]`, `shift` and `scale [B, 1, C]`."""
    return x * (1 + scale) + shift


class TimeEmbedder(nn.Module):
    """`t [B]` -> `[B, time_dim]`."""

    def __init__(self, time_dim: int, operations, **factory):
        super().__init__()
        self.mlp = nn.Sequential(
            operations.Linear(TIME_FREQUENCIES, time_dim, **factory),
            nn.SiLU(),
            operations.Linear(time_dim, time_dim, **factory),
        )

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(time_embedding(t).to(dtype))


class Attention(nn.Module):
    """Full self-attention; queries and keys are layer-normalized over the whole width, before the heads."""

    def __init__(self, dim: int, num_heads: int, operations, **factory):
        super().__init__()
        self.num_heads = num_heads
        self.wq = operations.Linear(dim, dim, bias=False, **factory)
        self.wk = operations.Linear(dim, dim, bias=False, **factory)
        self.wv = operations.Linear(dim, dim, bias=False, **factory)
        self.wo = operations.Linear(dim, dim, bias=False, **factory)
        self.q_norm = operations.LayerNorm(dim, **factory)
        self.k_norm = operations.LayerNorm(dim, **factory)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None, outputs: int) -> Tensor:
        """The first `outputs` tokens attend to all tokens."""
        projected = (self.q_norm(self.wq(x[:, :outputs])), self.k_norm(self.wk(x)), self.wv(x))
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in projected)
        q, k = rotate(q, rope[:outputs]), rotate(k, rope)
        attended = functional.scaled_dot_product_attention(q, k, v, mask)
        return self.wo(attended.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Gated feed-forward (SwiGLU, arXiv 2002.05202)."""

    def __init__(self, dim: int, width: int, operations, **factory):
        super().__init__()
        self.w1 = operations.Linear(dim, width, bias=False, **factory)
        self.w2 = operations.Linear(width, dim, bias=False, **factory)
        self.w3 = operations.Linear(dim, width, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention and feed-forward, both modulated by the time and added through raw gates (no tanh)."""

    def __init__(self, dim: int, num_heads: int, feed_forward_dim: int, time_dim: int, operations, **factory):
        super().__init__()
        self.attention = Attention(dim, num_heads, operations, **factory)
        self.feed_forward = FeedForward(dim, feed_forward_dim, operations, **factory)
        self.attention_norm = operations.LayerNorm(dim, **factory)
        self.ffn_norm = operations.LayerNorm(dim, **factory)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(time_dim, 6 * dim, **factory))

    def forward(
        self, x: Tensor, modulation: Tensor, rope: Tensor, mask: Tensor | None, outputs: int
    ) -> Tensor:
        """Computes the first `outputs` tokens; the others are only attended to.

        `modulation [B, 1, 6 C]` is what `adaLN_modulation` makes of the time; B may be 1.
        """
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.chunk(6, dim=-1)
        modulated = modulate(self.attention_norm(x), shift_a, scale_a)
        x = x[:, :outputs] + gate_a * self.attention(modulated, rope, mask, outputs)
        return x + gate_f * self.feed_forward(modulate(self.ffn_norm(x), shift_f, scale_f))


class FinalLayer(nn.Module):
    """Modulated layer norm without its own scale and shift, then the projection to the token width."""

    def __init__(self, dim: int, output_dim: int, time_dim: int, operations, **factory):
        super().__init__()
        self.norm_final = operations.LayerNorm(dim, eps=1e-6, elementwise_affine=False, **factory)
        self.linear = operations.Linear(dim, output_dim, **factory)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(time_dim, 2 * dim, **factory))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        return self.linear(modulate(self.norm_final(x), *modulation.chunk(2, dim=-1)))


class IPPrior(nn.Module):
    """Predicts the velocity of a concept's IP+ tokens from its noisy tokens, the time and the parts.

    State-dict keys are those of the published `prior.ckpt`. There is no slot embedding: only the rotary
    positions tell the noisy tokens (0..15) from the slots (from 16 + 16 s), so the order of parts matters.

    Attributes:
        gradient_checkpointing: in training, compute each layer a second time instead of keeping its
            activations: far less memory, a third more work, the same gradients.
    """

    gradient_checkpointing = False

    def __init__(
        self, embedding_dim: int = 2048, hidden_dim: int = 2048, num_layers: int = 4, num_heads: int = 32,
        operations=nn, *, feed_forward_dim: int | None = None, device=None, dtype=None,
    ):
        """
        Args:
            embedding_dim: token width D.
            hidden_dim: width of the transformer, a multiple of 2 * num_heads.
            operations: namespace of `Linear` and `LayerNorm` (ComfyUI's casting layers work too).
            feed_forward_dim: width of the gated feed-forward; by default the published rule.
        Raises:
            ValueError: hidden_dim cannot be split into num_heads even-sized heads.
        """
        super().__init__()
        if hidden_dim % (2 * num_heads):
            raise ValueError(
                f"Expected a hidden_dim that splits into {num_heads} heads of even width, got {hidden_dim}."
            )
        factory = {"device": device, "dtype": dtype}
        time_dim = min(hidden_dim, 1024)
        width = feed_forward_dim or feed_forward_width(hidden_dim)
        self.embedding_dim = embedding_dim
        self.head_dim = hidden_dim // num_heads
        self.x_embedder = operations.Linear(embedding_dim, hidden_dim, **factory)
        self.t_embedder = TimeEmbedder(time_dim, operations, **factory)
        self.layers = nn.ModuleList(
            Block(hidden_dim, num_heads, width, time_dim, operations, **factory) for _ in range(num_layers)
        )
        self.final_layer = FinalLayer(hidden_dim, embedding_dim, time_dim, operations, **factory)

    def reset_parameters(self) -> None:
        """The published start of training: no output at first, no input bias, the rest as torch does it."""
        # With an output of zero, training does not have to unlearn a random velocity first.
        nn.init.zeros_(self.x_embedder.bias)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.zeros_(self.final_layer.linear.bias)

    def forward(self, x: Tensor, t: Tensor, parts: Tensor, mask: Tensor | None = None) -> Tensor:
        """Velocity of the noisy tokens.

        Args:
            x: noisy tokens `[B, 16, D]`.
            t: time `[B]` in 0..1, 1 = noise.
            parts: tokens of the parts `[B, 16 P, D]`.
            mask: `[B, 16 P]`, False for tokens of slots that a sample does not have; None = all are seen.
        Returns:
            `[B, 16, D]`.
        """
        if mask is not None:
            # The noisy tokens come first and are always seen; the same mask for all heads and queries.
            mask = functional.pad(mask, (x.shape[1], 0), value=True)[:, None, None]
        tokens = self.x_embedder(torch.cat([x, parts], dim=1))
        rope = rope_table(tokens.shape[1], self.head_dim, tokens.device)
        return self.transform(tokens, self.modulations(t, tokens.dtype), rope, mask, x.shape[1])

    def modulations(self, t: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Modulations of the layers at the times `t [S]`: `[S, 1, 6 C]` each, the last `[S, 1, 2 C]`."""
        time = self.t_embedder(t, dtype)
        return [layer.adaLN_modulation(time)[:, None] for layer in (*self.layers, self.final_layer)]

    def transform(
        self, tokens: Tensor, modulations: Sequence[Tensor], rope: Tensor, mask: Tensor | None, outputs: int
    ) -> Tensor:
        """The layers: embedded tokens `[B, N, C]` -> velocity of the first `outputs`, `[B, outputs, D]`."""
        for number, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=False), start=1):
            # Only the noisy tokens of the last layer are read, so nothing else is computed there.
            kept = outputs if number == len(self.layers) else tokens.shape[1]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                # Reentrant checkpoints lose the gradients where only the layer's weights need them, as when
                # low-rank changes are trained and the tokens come from a frozen embedding.
                tokens = checkpoint(layer, tokens, modulation, rope, mask, kept, use_reentrant=False)
            else:
                tokens = layer(tokens, modulation, rope, mask, kept)
        return self.final_layer(tokens[:, :outputs], modulations[-1])

    def prepared(self, parts: Tensor, times: Sequence[float]) -> PreparedPrior:
        """The velocity under fixed parts `[B, 16 P, D]` at the given times, for a sampler."""
        return PreparedPrior(self, parts, times)


class PreparedPrior:
    """An IP-Prior with what its steps share computed once: embedded parts, modulations, rotations.

    The velocities are those of `IPPrior`, with less work, computed in the type of the parts. On a GPU the
    steps are replays of a CUDA graph.
    """

    def __init__(self, prior: IPPrior, parts: Tensor, times: Sequence[float]):
        self.prior, self.dtype = prior, parts.dtype
        self.parts = prior.x_embedder(parts)
        # Modulations depend on the time alone, and a fifth of the weights does nothing but make them: all
        # times in one batch read these weights once instead of once a step.
        self.place = {t: index for index, t in enumerate(dict.fromkeys(times))}
        modulations = prior.modulations(torch.tensor(list(self.place), device=parts.device), parts.dtype)
        self.widths = [each.shape[-1] for each in modulations]
        self.modulations = torch.cat(modulations, dim=-1)
        self.rope: Tensor | None = None
        self.replay: RecordedStep | None = None

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Velocity `[B, 16, D]` in the type of `x`, at one of the times.

        `x [b, 16, D]` may hold fewer samples than the parts, which are then for `x` several times over.
        """
        place = self.place[t]
        inputs = x, self.modulations[place:place + 1]
        if self.rope is None:
            self.rope = rope_table(x.shape[1] + self.parts.shape[1], self.prior.head_dim, x.device)
            # Recorded at the first call, since only then the number of samples is known.
            worth_it = len(self.place) >= RECORDED_STEPS and recordable(self.prior, self.parts)
            self.replay = recorded(self.velocity, inputs) if worth_it else None
        return (self.replay or self.velocity)(*inputs)

    def velocity(self, x: Tensor, modulation: Tensor) -> Tensor:
        """The same from the modulations of one time, `[1, 1, C]`: nothing but kernels."""
        # With guidance both branches see the same noisy tokens, so these are embedded once and repeated.
        noisy = self.prior.x_embedder(x.to(self.dtype)).repeat(len(self.parts) // len(x), 1, 1)
        tokens = torch.cat([noisy, self.parts], dim=1)
        modulations = modulation.split(self.widths, dim=-1)
        return self.prior.transform(tokens, modulations, self.rope, None, x.shape[1]).to(x.dtype)
