"""The path of flow matching, its training times, losses and weights: pure functions of tensors.

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

    A `mean` of 0 and a `spread` of 1 are published; a mean above 0 moves the times toward noise, a larger
    spread moves them toward both ends.
    """
    # The velocity is hardest to predict in between: at t = 1 the best estimate is the noise minus the mean of
    # the data, at t = 0 the mean of the noise minus the data. So most training goes to the middle.
    return torch.sigmoid(mean + spread * torch.randn(count, generator=generator))


def velocity_loss(prior: Prior, clean: Tensor, parts: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The published loss per sample: mean squared error of the velocity, with the same weight at all times.

    Args:
        clean, noise: `[B, 16, D]`; parts: `[B, 16 P, D]`; t: `[B]`.
    Returns:
        `[B]`.
    """
    velocity = prior(interpolate(clean, noise, t), t, parts)
    return (noise - clean - velocity).square().mean(dim=(1, 2))


def min_snr_weight(t: Tensor, gamma: float) -> Tensor:
    """Weights `[B]` of the velocity loss that cap the clean end, after Min-SNR (arXiv 2303.09556).

    An error e of the velocity is an error t * e of the clean tokens, whose square Min-SNR weights by
    min(SNR, gamma), where SNR = ((1 - t) / t)^2: together min((1 - t)^2, gamma t^2).
    """
    # Multiplied out, nothing is divided by t, which comes close to 0.
    return torch.minimum((1 - t).square(), gamma * t.square())
