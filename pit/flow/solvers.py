"""Solvers of the flow dx/dt = velocity(x, t), and the times they step through, from noise (t = 1) to 0.

Every solver has the same signature, takes any falling times, and never evaluates at t = 0, which training
never sees. Some work on the estimate of the clean tokens, clean = x - t * velocity, in steps of half the log
of the signal-to-noise ratio: log((1 - t) / t) on the path x_t = (1 - t) * clean + t * noise.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor], None]
Solver = Callable[[Velocity, Tensor, Sequence[float], OnStep], Tensor]

SHIFT = 3.0


def uniform(share: float) -> float:
    """The published times: equal steps."""
    return share


def shifted(share: float) -> float:
    """More steps where there is noise, shift 3 (Stable Diffusion 3, arXiv 2403.03206, section 5.3.2)."""
    # Multiplies the ratio of noise to signal, t / (1 - t), by the shift and keeps both ends where they are.
    return SHIFT * share / (1 + (SHIFT - 1) * share)


def cosine(share: float) -> float:
    """More steps at both ends: half a cosine wave."""
    # Half the log of the signal-to-noise ratio runs to infinity at both ends. Even steps in t are long steps
    # in that measure there, and cost the solvers that work in it an order of accuracy.
    return 0.5 * (1 - math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[float], float]] = {"uniform": uniform, "shifted": shifted, "cosine": cosine}


def time_steps(steps: int, strength: float = 1.0, schedule: str = "uniform") -> list[float]:
    """Times from `strength` down to 0, in ceil(steps * strength) steps.

    With `uniform` these are the published i / steps, which begin at the first at or above the strength.

    Raises:
        ValueError: unknown schedule, steps < 1, or a strength outside 0..1.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"Expected one of the schedules {', '.join(SCHEDULES)}, got {schedule!r}.")
    if steps < 1:
        raise ValueError(f"Expected at least 1 for steps, got {steps}.")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"Expected a strength between 0 and 1, got {strength}.")
    taken = math.ceil(steps * strength)
    if schedule == "uniform":
        # As published, from ceil(steps * strength) / steps rather than from the strength itself.
        return [i / steps for i in range(taken, -1, -1)]
    return [strength * SCHEDULES[schedule](i / taken) for i in range(taken, 0, -1)] + [0.0]


def euler(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """Euler's method: one evaluation a step, first order. The published sampler."""
    for step, (t, t_next) in enumerate(pairwise(times)):
        v = velocity(x, t)
        on_step(step, x - t * v)
        x = x + (t_next - t) * v
    return x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """Heun's method (arXiv 2206.00364, algorithm 1): two evaluations a step, second order.

    The last step, to 0, is Euler's, because the second evaluation would be at 0.
    """
    for step, (t, t_next) in enumerate(pairwise(times)):
        v, width = velocity(x, t), t_next - t
        on_step(step, x - t * v)
        if t_next > 0:
            v = (v + velocity(x + width * v, t_next)) / 2
        x = x + width * v
    return x


def midpoint(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """Explicit midpoint method: two evaluations a step, second order."""
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
        # The integral over this step of the line through the last two velocities, whose times may be uneven.
        slope = v if previous is None else v + width / (2 * previous_width) * (v - previous)
        x, previous, previous_width = x + width * slope, v, width
    return x


def snr_step(t: float, t_next: float) -> float:
    """How much half the log of the signal-to-noise ratio grows: infinite from t = 1, and to 0."""
    # One logarithm of a ratio near 1 is more exact than the difference of two large ones.
    if t == 1 or t_next == 0:
        return math.inf
    return math.log((1 - t_next) / (1 - t) * t / t_next)


class Evaluation(NamedTuple):
    """The start of a step.

    Attributes:
        x, t: the state and its time.
        clean: the estimate of the clean tokens there.
        h: how much the step raises half the log of the signal-to-noise ratio.
    """

    x: Tensor
    t: float
    clean: Tensor
    h: float


def carried_on(start: Evaluation, older: Evaluation | None) -> Tensor:
    """The clean estimate half a step ahead, extrapolated from an older one; an infinite step leaves it."""
    # The estimate as a straight line in h, at the middle of the step: second order with one evaluation. An
    # infinite older step, from t = 1, makes the factor 0, and the step is of first order.
    if older is None or not math.isfinite(start.h):
        return start.clean
    return start.clean + start.h / (2 * older.h) * (start.clean - older.clean)


def dpm_solver_2m(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): one evaluation a step, second order."""
    previous = None
    for step, (t, t_next) in enumerate(pairwise(times)):
        start = Evaluation(x, t, x - t * velocity(x, t), snr_step(t, t_next))
        on_step(step, start.clean)
        # The exact solution for a constant clean estimate: the noise shrinks in proportion to t, which gives
        # x_next = clean + t_next / t * (x - clean).
        x = torch.lerp(carried_on(start, previous), x, t_next / t)
        previous = start
    return x


def unipc(velocity: Velocity, x: Tensor, times: Sequence[float], on_step: OnStep) -> Tensor:
    """UniPC of order 2 with B(h) = exp(h) - 1 (arXiv 2302.04867, algorithm 7): one evaluation a step.

    Each evaluation first corrects the step that led to it; the predictor is DPM-Solver++(2M).
    """
    previous = older = None
    for step, (t, t_next) in enumerate(pairwise(times)):
        clean = x - t * velocity(x, t)
        if previous is not None:
            # `clean` was estimated at the predicted state and also serves the corrected one, as in the
            # paper: that keeps it at one evaluation a step.
            x = corrected(previous, older, clean, t)
        on_step(step, clean)
        older, previous = previous, Evaluation(x, t, clean, snr_step(t, t_next))
        x = torch.lerp(carried_on(previous, older), x, t_next / t)
    return x


def corrected(start: Evaluation, older: Evaluation | None, reached: Tensor, t_next: float) -> Tensor:
    """UniPC's step from `start` to `t_next` once more, now with the clean estimate `reached` at its end."""
    # Without an older estimate: the mean of both ends, the trapezoidal rule.
    forecast = (start.clean + reached) / 2
    if older is not None:
        # Weights of the older and the reached estimate that make the step exact for an estimate quadratic in
        # h. With r = -h_older / h they solve w_1 + w_2 = first and r w_1 + w_2 = second, the moments of the
        # exponential weighting over the step; w_1 is divided by r because it belongs to a slope.
        ratio = -older.h / start.h
        grown = math.expm1(-start.h)
        first = (-grown / start.h - 1) / grown
        second = 2 * ((grown / start.h + 1) / start.h - 0.5) / grown
        weight = (first - second) / (1 - ratio)
        bend = weight / ratio * (older.clean - start.clean) + (first - weight) * (reached - start.clean)
        forecast = start.clean + bend
    return torch.lerp(forecast, start.x, t_next / start.t)


SOLVERS: dict[str, Solver] = {
    "euler": euler, "heun": heun, "midpoint": midpoint, "ab2": adams_bashforth_2, "dpm++ 2m": dpm_solver_2m,
    "unipc": unipc,
}


def evaluation_times(solver: str, times: Sequence[float]) -> list[float]:
    """The times at which a solver evaluates the velocity, in order of evaluation."""
    # A dry run on a field at rest: no second description of each solver that could drift from the first.
    asked: list[float] = []

    def resting(x: Tensor, t: float) -> Tensor:
        asked.append(t)
        return x

    SOLVERS[solver](resting, torch.zeros(()), times, lambda *_: None)
    return asked
