"""Sampling an image embedding from a condition: the UnCLIP sampler, as Kandinsky 2.2 sets it.

Ancestral sampling of DDPM (arXiv 2006.11239) with a network that predicts the clean embedding.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..flow.guidance import Guidance
from .prior import PriorTransformer

TRAINING_STEPS = 1000
LARGEST = 10.0  # where predictions in normalized space are cut off; other priors of this kind have 5 or 1
LARGEST_BETA, COSINE_OFFSET = 0.999, 0.008
LEAST_VARIANCE = 1e-20

OnStep = Callable[[int, int, Tensor], None]


class Schedule(NamedTuple):
    """What each step multiplies the clean prediction, the current embedding and the noise with: `[steps]`."""

    timesteps: list[int]
    clean: Tensor
    current: Tensor
    noise: Tensor


def betas() -> Tensor:
    """Variances of the noise that each of the 1000 training steps adds: the squared-cosine schedule."""
    def kept(part: float) -> float:
        return math.cos((part + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2

    steps = range(TRAINING_STEPS)
    shares = [1 - kept((step + 1) / TRAINING_STEPS) / kept(step / TRAINING_STEPS) for step in steps]
    return torch.tensor(shares, dtype=torch.float32).clamp(max=LARGEST_BETA)


def alphas_cumprod() -> Tensor:
    """How much variance of the clean embedding is left at each timestep, `[1000]`."""
    return (1 - betas()).cumprod(dim=0)


def timesteps(steps: int) -> list[int]:
    """The timesteps of a sampling, from 999 down to 0. Raises ValueError unless steps is 1 to 1000."""
    if not 1 <= steps <= TRAINING_STEPS:
        raise ValueError(f"Expected 1 to {TRAINING_STEPS} steps, got {steps}.")
    if steps == 1:
        return [TRAINING_STEPS - 1]
    # numpy rounds halves to even, as the published scheduler does.
    return np.round(np.arange(steps)[::-1] * (TRAINING_STEPS - 1) / (steps - 1)).astype(int).tolist()


def schedule(steps: int) -> Schedule:
    """The coefficients of all steps. Raises ValueError as `timesteps` does."""
    times = timesteps(steps)
    # In float32 throughout, since the published sampler is: with small steps its rounding shows.
    at, following = torch.tensor(times), torch.tensor([*times[1:], -1])
    kept = alphas_cumprod()
    a, a_next = kept[at], torch.where(following >= 0, kept[following.clamp(min=0)], 1.0)
    beta = torch.where(following == at - 1, betas()[at], 1 - a / a_next)
    clean = a_next.sqrt() * beta / (1 - a)
    current = (1 - beta).sqrt() * (1 - a_next) / (1 - a)
    variance = (beta * (1 - a_next) / (1 - a)).clamp(min=LEAST_VARIANCE)
    # The last step adds no noise: what it gives is the result.
    noise = torch.where(following >= 0, (0.5 * variance.log()).exp(), 0.0)
    return Schedule(times, clean, current, noise)


def operator_noise(seed: int, count: int, width: int, steps: int) -> tuple[Tensor, Tensor]:
    """Starting noise `[count, width]` and that of the steps `[steps - 1, count, width]`, from the CPU.

    Row i is what seed + i draws alone, in the published order: the starting noise, then each step's.
    """
    drawn = []
    for number in range(count):
        generator = torch.Generator().manual_seed((seed + number) % 2**64)
        # One by one: a single large draw gives other values at widths that are no multiple of 16.
        drawn.append(torch.stack([torch.randn(width, generator=generator) for _ in range(steps)]))
    values = torch.stack(drawn, dim=1)
    return values[0], values[1:]


@torch.no_grad()
def sample_operator(
    operator: PriorTransformer, condition: Tensor, *, noise: Tensor, step_noise: Tensor | None = None,
    steps: int = 25, guidance_scale: float = 1.0, mask: Tensor | None = None, callback: OnStep | None = None,
) -> Tensor:
    """Apply an operator: draw image embeddings under a condition. This is the published sampler.

    The operator computes in the type of the condition, the sampler in float32.

    Args:
        condition: tokens in normalized space `[B, n, E]`, see `pit.pops.embeddings`.
        noise: starting noise `[B, E]`.
        step_noise: noise of all steps but the last `[steps - 1, B, E]`; None draws each from torch's own
            generator on the CPU as it is needed.
        guidance_scale: leads away from an empty condition; 1 or less turns guidance off.
        mask: `[B, n]`, False for slots that a row does not have: conditions of different lengths.
        callback: called in every step with (step, total, estimate of the raw embeddings); raise to cancel.
    Returns:
        Raw embeddings `[B, E]` float32, as the encoder gives them.
    Raises:
        ValueError: steps or guidance out of range, or shapes that do not fit together.
        FloatingPointError: a result that is not finite; the message names the step at which it arose.
    """
    Guidance(guidance_scale).check()
    plan, x = schedule(steps), noise.float()
    operator.check_condition(condition, mask)
    _check_noise(operator, condition, noise, step_noise, steps)
    predicted = _guided(operator, condition, mask, plan.timesteps, guidance_scale)
    finite = torch.ones(steps, dtype=torch.bool, device=x.device)
    for step, t in enumerate(plan.timesteps):
        estimate = predicted(x, t)
        # Before they are cut off, which would hide infinite values.
        finite[step] = estimate.isfinite().all()
        # After guidance, as published: a high scale is what leads beyond the range.
        estimate = estimate.clamp(-LARGEST, LARGEST)
        x = plan.clean[step].item() * estimate + plan.current[step].item() * x
        if step < steps - 1:
            x = x + plan.noise[step].item() * _noise_of(step, x, step_noise)
        if callback is not None:
            callback(step + 1, steps, operator.raw(estimate))
    _check_finite(finite)
    return operator.raw(x)


def _guided(
    operator: PriorTransformer, condition: Tensor, mask: Tensor | None, times: list[int], scale: float
) -> Callable[[Tensor, int], Tensor]:
    """The prediction with guidance, both branches in one batch."""
    if scale <= 1:
        return operator.prepared(condition, times, mask)
    # The published negative: zeros in the very slots that the condition has.
    both = torch.cat([torch.zeros_like(condition), condition])
    prepared = operator.prepared(both, times, None if mask is None else mask.repeat(2, 1))

    def guided(x: Tensor, t: int) -> Tensor:
        negative, given = prepared(x, t).chunk(2)
        return negative + scale * (given - negative)

    return guided


def _noise_of(step: int, x: Tensor, step_noise: Tensor | None) -> Tensor:
    drawn = torch.randn(x.shape) if step_noise is None else step_noise[step]
    return drawn.to(x)


def _check_noise(
    operator: PriorTransformer, condition: Tensor, noise: Tensor, step_noise: Tensor | None, steps: int
) -> None:
    wanted = (len(condition), operator.embedding_dim)
    if noise.shape != wanted:
        raise ValueError(
            f"Expected noise of the shape {list(wanted)}, a row for each condition, got {list(noise.shape)}."
        )
    if step_noise is not None and step_noise.shape != (steps - 1, *wanted):
        raise ValueError(
            f"Expected step_noise of the shape {[steps - 1, *wanted]} for {steps} steps, got "
            f"{list(step_noise.shape)}."
        )


def _check_finite(finite: Tensor) -> None:
    # Flags are read once, at the end: reading each would make the CPU wait for the GPU in every step.
    flags = finite.tolist()
    if not all(flags):
        raise FloatingPointError(
            f"Expected finite values from the operator, got values that are not finite at step "
            f"{flags.index(False) + 1} of {len(flags)}. Its weights or the embeddings are damaged, or the "
            "guidance scale is far too high."
        )
