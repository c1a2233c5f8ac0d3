"""Sampling the tokens of whole concepts from the tokens of parts, with guidance."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..flow.guidance import Guidance, rescaled, seeded_noise
from ..flow.path import Prior
from ..flow.solvers import SOLVERS, Velocity, evaluation_times, time_steps
from ..ip_adapter.resampler import TOKENS_PER_PICTURE
from .prior import IPPrior

OnProgress = Callable[[int, int, Tensor], None]


def prepared(prior: Prior, parts: Tensor, times: Sequence[float]) -> Velocity:
    """The velocity under fixed parts; an `IPPrior` computes beforehand what its steps share."""
    if isinstance(prior, IPPrior):
        return prior.prepared(parts, times)

    def velocity(x: Tensor, t: float) -> Tensor:
        x = x.repeat(len(parts) // len(x), 1, 1)
        return prior(x, torch.full((len(x),), t, device=x.device), parts)

    return velocity


def guided_velocity(
    prior: Prior, parts: Tensor, negative_parts: Tensor, guidance: Guidance, times: Sequence[float]
) -> Velocity:
    """The velocity with guidance, in one batched call.

    Args:
        parts, negative_parts: `[B, 16 P, D]`; guidance leads away from the second.
        times: all at which it will be evaluated.
    """
    # Two preparations, because steps with guidance have twice the batch and a CUDA graph has one shape.
    with_guidance = [t for t in times if guidance.applies(t)]
    without = [t for t in times if not guidance.applies(t)]
    both = prepared(prior, torch.cat([parts, negative_parts]), with_guidance) if with_guidance else None
    alone = prepared(prior, parts, without) if without else None

    def velocity(x: Tensor, t: float) -> Tensor:
        if not guidance.applies(t):
            return alone(x, t)
        # Both branches in one batch: a prior is limited by reading its weights, not by the number of rows.
        given, negative = both(x, t).chunk(2)
        guided = torch.lerp(negative, given, guidance.scale)
        return rescaled(guided, given, guidance.rescale) if guidance.rescale else guided

    return velocity


def sample_prior(
    prior: Prior, parts: Tensor, *, empty_tokens: Tensor, noise: Tensor, steps: int = 25,
    guidance_scale: float = 2.0, solver: str = "euler", init_tokens: Tensor | None = None,
    strength: float = 1.0, callback: OnProgress | None = None, schedule: str = "uniform",
    guidance_interval: tuple[float, float] = (0.0, 1.0), guidance_rescale: float = 0.0,
    negative_parts: Tensor | None = None,
) -> Tensor:
    """Draw the tokens of whole concepts from the tokens of parts. With `euler` this is the published sampler.

    The prior computes in the type of the parts, the solver in that of the noise.

    Args:
        parts: tokens of the parts `[B, 16 P, D]`, slot after slot.
        empty_tokens: tokens of the white picture `[1, 16, D]`, for all slots of the unconditional branch.
        noise: starting noise `[B, 16, D]`.
        init_tokens: concepts to start from `[B, 16, D]`; mixed as strength * noise + (1 - strength) * init.
        strength: 0 (keep init_tokens) to 1 (start from noise), in ceil(steps * strength) steps.
        callback: called in every step with (step, total, estimate of the clean tokens); raise to cancel.
        schedule: one of `pit.flow.solvers.SCHEDULES`.
        guidance_interval, guidance_rescale: see `Guidance`.
        negative_parts: `[B, 16 P, D]`, instead of the empty tokens of the unconditional branch.
    Returns:
        `[B, 16, D]` in the type of `noise`.
    Raises:
        ValueError: unknown solver or schedule, steps < 1, guidance or strength out of range, a strength
            below 1 without init_tokens, or shapes that do not fit together.
        FloatingPointError: a result that is not finite; the message names the step at which it arose.
    """
    guidance = Guidance(guidance_scale, guidance_interval, guidance_rescale)
    guidance.check()
    if solver not in SOLVERS:
        raise ValueError(f"Expected one of the solvers {', '.join(SOLVERS)}, got {solver!r}.")
    check_shapes(parts, empty_tokens, noise)
    negative_parts = unconditional_parts(parts, empty_tokens) if negative_parts is None else negative_parts
    if negative_parts.shape != parts.shape:
        raise ValueError(
            f"Expected negative_parts of the shape of the parts, {list(parts.shape)}, got "
            f"{list(negative_parts.shape)}."
        )
    x = start(noise, init_tokens, strength)
    times = time_steps(steps, strength, schedule)
    total = len(times) - 1
    velocity = guided_velocity(prior, parts, negative_parts, guidance, evaluation_times(solver, times))
    # Flags stay on the device and are read once, at the end: reading one in each step would make the CPU wait
    # for the GPU there. That way the message can still name the step.
    finite = torch.ones(total + 1, dtype=torch.bool, device=x.device)

    def on_step(step: int, clean_estimate: Tensor) -> None:
        finite[step] = clean_estimate.isfinite().all()
        if callback is not None:
            callback(step + 1, total, clean_estimate)

    x = SOLVERS[solver](velocity, x, times, on_step)
    # The last step has no estimate behind it, so its result is checked itself.
    finite[total] = x.isfinite().all()
    check_finite(finite)
    return x


def unconditional_parts(parts: Tensor, empty_tokens: Tensor) -> Tensor:
    """Empty tokens `[1, 16, D]` in every slot of parts `[B, 16 P, D]`, in their shape and type."""
    slots = parts.shape[1] // empty_tokens.shape[1]
    return empty_tokens.to(parts.dtype).repeat(len(parts), slots, 1)


def concept_noise(seed: int, count: int, width: int) -> Tensor:
    """Starting noise of concepts, `[count, 16, width]`; concept i is what seed + i draws alone."""
    return seeded_noise(seed, count, TOKENS_PER_PICTURE, width)


def start(noise: Tensor, init_tokens: Tensor | None, strength: float) -> Tensor:
    """Where the path is entered, `[B, 16, D]`. Raises ValueError if strength and tokens do not match."""
    if init_tokens is None:
        if strength != 1.0:
            raise ValueError(f"Expected init_tokens to start from with a strength of {strength}, got none.")
        return noise
    if init_tokens.shape != noise.shape:
        raise ValueError(
            f"Expected init_tokens of the shape of the noise, {list(noise.shape)}, got "
            f"{list(init_tokens.shape)}."
        )
    # The point of the path at t = strength. As published, the first time may lie a little above it, where
    # steps * strength is not a whole number.
    return strength * noise + (1 - strength) * init_tokens


def check_finite(finite: Tensor) -> None:
    """Raise FloatingPointError at the first step whose flag in `finite [steps + 1]` is False."""
    flags = finite.tolist()
    if not all(flags):
        steps = len(flags) - 1
        raise FloatingPointError(
            f"Expected finite values from the IP-Prior, got values that are not finite at step "
            f"{min(flags.index(False) + 1, steps)} of {steps}. Its weights or the tokens of the parts are "
            "damaged, or the guidance scale is far too high."
        )


def check_shapes(parts: Tensor, empty_tokens: Tensor, noise: Tensor) -> None:
    """Raise ValueError where the inputs of `sample_prior` do not fit together."""
    slot = empty_tokens.shape[1]
    if parts.shape[1] == 0 or parts.shape[1] % slot:
        raise ValueError(f"Expected one or more slots of {slot} tokens in parts, got {parts.shape[1]}.")
    if not parts.shape[-1] == empty_tokens.shape[-1] == noise.shape[-1]:
        raise ValueError(
            f"Expected parts, empty tokens and noise of the width of the prior, got the widths "
            f"{parts.shape[-1]}, {empty_tokens.shape[-1]} and {noise.shape[-1]}."
        )
    if parts.shape[0] != noise.shape[0]:
        raise ValueError(
            f"Expected noise for as many concepts as parts, {parts.shape[0]}, got noise for {noise.shape[0]}."
        )
