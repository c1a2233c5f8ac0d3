"""The flow-matching core: path, time sampling, loss, guidance, sampling. Pure functions of tensors.

Rectified flow as in Piece it Together (arXiv 2503.10365), section 3: x_t = (1 - t) * clean + t * noise, so
t = 1 is noise, and the model predicts the velocity dx/dt = noise - clean. Sampling goes from t = 1 to 0.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Prior = Callable[[Tensor, Tensor, Tensor], Tensor]


def interpolate(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The path: `clean`, `noise [B, N, D]`, `t [B]` -> `x_t [B, N, D]`."""
    t = t[:, None, None]
    return (1 - t) * clean + t * noise


def logit_normal_time(
    count: int, generator: torch.Generator | None = None, mean: float = 0.0, spread: float = 1.0
) -> Tensor:
    """Training times `[count]`: the sigmoid of a normal (arXiv 2403.03206, section 3.1).

    A `mean` of 0 and a `spread` of 1 are the published ones; with a mean above 0 the times lie nearer to
    noise, with more spread nearer to both ends.
    """
    return torch.sigmoid(mean + spread * torch.randn(count, generator=generator))


def velocity_loss(prior: Prior, clean: Tensor, parts: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The published loss per sample: mean squared error of the velocity.

    Args:
        clean, noise: `[B, 16, D]`; parts: `[B, 16 P, D]`; t: `[B]`.
    Returns:
        `[B]`.
    """
    velocity = prior(interpolate(clean, noise, t), t, parts)
    return (noise - clean - velocity).square().mean(dim=(1, 2))


def min_snr_weight(t: Tensor, gamma: float) -> Tensor:
    """Weights `[B]` of the velocity loss that cap the clean end, after Min-SNR (arXiv 2303.09556).

    An error e of the velocity is one of t * e of the clean tokens, which Min-SNR weighs by min(SNR, gamma),
    with SNR = ((1 - t) / t)^2 here: together min((1 - t)^2, gamma t^2), without a division by t.
    """
    return torch.minimum((1 - t).square(), gamma * t.square())
