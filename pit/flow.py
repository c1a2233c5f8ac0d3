"""The flow-matching core: path, time sampling, loss, schedule, solvers, guidance. Pure functions of tensors.

Rectified flow as in Piece it Together (arXiv 2503.10365), section 3: x_t = (1 - t) * clean + t * noise, so
t = 1 is noise, and the model predicts the velocity dx/dt = noise - clean. Sampling goes from t = 1 to 0.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Prior = Callable[[Tensor, Tensor, Tensor], Tensor]
Velocity = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor], None]
Solver = Callable[[Velocity, Tensor, Sequence[float], OnStep], Tensor]


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


def concept_noise(seed: int, count: int, width: int, tokens: int = 16) -> Tensor:
    """Starting noise `[count, tokens, width]`, drawn on the CPU; concept i is what seed + i draws alone."""
    rows = []
    for index in range(count):
        generator = torch.Generator().manual_seed((seed + index) % 2**64)
        rows.append(torch.randn(tokens, width, generator=generator))
    return torch.stack(rows)


def time_steps(steps: int, strength: float = 1.0) -> list[float]:
    """Uniform times from the start down to 0: i / steps for i = ceil(steps * strength) .. 0, as published."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must lie between 0 and 1, got {strength}")
    return [i / steps for i in range(math.ceil(steps * strength), -1, -1)]


def euler(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """Euler's method: one evaluation a step, first order. The published sampler."""
    for step, (t, t_next) in enumerate(pairwise(times)):
        v = velocity(x, t)
        on_step(step, x - t * v)
        x = x + (t_next - t) * v
    return x


def midpoint(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """Explicit midpoint method: two evaluations a step, second order; never evaluates at t = 0."""
    for step, (t, t_next) in enumerate(pairwise(times)):
        v = velocity(x, t)
        on_step(step, x - t * v)
        middle = (t + t_next) / 2
        x = x + (t_next - t) * velocity(x + (middle - t) * v, middle)
    return x


def adams_bashforth_2(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """Two-step Adams-Bashforth method: one evaluation a step, second order; the first step is Euler's."""
    previous = previous_width = None
    for step, (t, t_next) in enumerate(pairwise(times)):
        v, width = velocity(x, t), t_next - t
        on_step(step, x - t * v)
        slope = v if previous is None else v + width / (2 * previous_width) * (v - previous)
        x, previous, previous_width = x + width * slope, v, width
    return x


SOLVERS: dict[str, Solver] = {"euler": euler, "midpoint": midpoint, "ab2": adams_bashforth_2}


def guided_velocity(prior: Prior, parts: Tensor, empty_parts: Tensor, guidance_scale: float) -> Velocity:
    """Classifier-free guidance in one batched call: v = v_empty + scale * (v_parts - v_empty).

    As published, a scale of 1 or less means no guidance at all.

    Args:
        parts, empty_parts: `[B, 16 P, D]`; the second holds empty tokens in every slot.
    """
    def unguided(x: Tensor, t: float) -> Tensor:
        return prior(x, torch.full((x.shape[0],), t, device=x.device), parts)

    def guided(x: Tensor, t: float) -> Tensor:
        times = torch.full((2 * x.shape[0],), t, device=x.device)
        given, empty = prior(torch.cat([x, x]), times, both).chunk(2)
        return empty + guidance_scale * (given - empty)

    if guidance_scale <= 1.0:
        return unguided
    both = torch.cat([parts, empty_parts])
    return guided


def sample_prior(prior: Prior, parts: Tensor, *, empty_tokens: Tensor, noise: Tensor, steps: int = 25,
                 guidance_scale: float = 2.0, solver: str = "euler", init_tokens: Tensor | None = None,
                 strength: float = 1.0, callback: Callable[[int, int, Tensor], None] | None = None) -> Tensor:
    """Draw the tokens of whole concepts from the tokens of parts. With `euler` this is the published sampler.

    Args:
        parts: tokens of the parts `[B, 16 P, D]`, slot after slot.
        empty_tokens: tokens of the white picture `[1, 16, D]`; fill every slot of the unconditional branch.
        noise: starting noise `[B, 16, D]`.
        init_tokens: concepts to start from `[B, 16, D]`; mixed as strength * noise + (1 - strength) * init.
        strength: 0 (keep init_tokens) to 1 (start from noise); the first step is ceil(steps * strength).
        callback: called once a step with (step, total, estimate of the clean tokens); raise to cancel.
    Returns:
        `[B, 16, D]` in the dtype of `noise`.
    Raises:
        ValueError: unknown solver, steps < 1, a guidance or strength that is no number in range, a strength
            below 1 without init_tokens, or shapes that do not fit together.
        FloatingPointError: the result is not finite.
    """
    check_sampling_inputs(parts, empty_tokens, noise, guidance_scale, solver, init_tokens, strength)
    times = time_steps(steps, strength)
    total = len(times) - 1
    slots = parts.shape[1] // empty_tokens.shape[1]
    velocity = guided_velocity(prior, parts, empty_tokens.repeat(parts.shape[0], slots, 1), guidance_scale)
    x = noise if init_tokens is None else strength * noise + (1 - strength) * init_tokens

    def on_step(step: int, clean_estimate: Tensor) -> None:
        if callback is not None:
            callback(step + 1, total, clean_estimate)

    x = SOLVERS[solver](velocity, x, times, on_step)
    if not x.isfinite().all():
        raise FloatingPointError(
            "The IP-Prior produced values that are not finite; its weights or the tokens of the parts are "
            "damaged, or the guidance scale is far too high."
        )
    return x


def check_sampling_inputs(
    parts: Tensor, empty_tokens: Tensor, noise: Tensor, guidance_scale: float, solver: str,
    init_tokens: Tensor | None, strength: float,
) -> None:
    """Raise ValueError where the inputs of `sample_prior` do not fit together."""
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; there are {', '.join(SOLVERS)}")
    if not math.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale must be a finite number, got {guidance_scale}")
    if init_tokens is None and strength != 1.0:
        raise ValueError(f"a strength of {strength} needs init_tokens to start from")
    if init_tokens is not None and init_tokens.shape != noise.shape:
        raise ValueError(f"init_tokens are {list(init_tokens.shape)}, noise is {list(noise.shape)}")
    slot = empty_tokens.shape[1]
    if parts.shape[1] == 0 or parts.shape[1] % slot:
        raise ValueError(f"parts must hold one or more slots of {slot} tokens, got {parts.shape[1]} tokens")
    if not parts.shape[-1] == empty_tokens.shape[-1] == noise.shape[-1]:
        raise ValueError(f"parts are {parts.shape[-1]} wide, empty tokens {empty_tokens.shape[-1]}, "
                         f"noise {noise.shape[-1]}; all must be as wide as the prior")
    if parts.shape[0] != noise.shape[0]:
        raise ValueError(f"parts are given for {parts.shape[0]} concepts, noise for {noise.shape[0]}")
