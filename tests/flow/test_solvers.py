"""The solvers: their order on fields with a closed-form solution, how often they evaluate, and the times."""
from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pit.flow.solvers import SCHEDULES, SOLVERS, evaluation_times, time_steps

ORDERS = {"euler": 1, "heun": 2, "midpoint": 2, "ab2": 2, "dpm++ 2m": 2, "unipc": 3}


def decay(x: Tensor, t: float) -> Tensor:
    return -x


def waves(x: Tensor, t: float) -> Tensor:
    return 3 * math.cos(5 * t) * x


def logistic(x: Tensor, t: float) -> Tensor:
    return x * (1 - x)


def decayed(x: float, t: float, end: float) -> float:
    return x * math.exp(t - end)


def waved(x: float, t: float, end: float) -> float:
    return x * math.exp(0.6 * (math.sin(5 * end) - math.sin(5 * t)))


def grown(x: float, t: float, end: float) -> float:
    return 1 / (1 + (1 / x - 1) * math.exp(t - end))


CLOSED_FORMS: list[tuple[Callable, Callable]] = [(decay, decayed), (waves, waved), (logistic, grown)]


def solver_error(name: str, field: Callable, exact: Callable, times: list[float]) -> float:
    x = torch.tensor([0.3], dtype=torch.float64)
    end = SOLVERS[name](field, x, times, lambda *_: None)
    return (end - exact(0.3, times[0], times[-1])).abs().item()


def inside(steps: int) -> list[float]:
    """Even times within the path, where no step is infinite in the signal-to-noise ratio."""
    return [0.9 - 0.8 * i / steps for i in range(steps + 1)]


def whole(steps: int) -> list[float]:
    """From noise to the end. With even steps the solvers in the signal-to-noise ratio lose an order."""
    return time_steps(steps, schedule="cosine")


@pytest.mark.parametrize("times", [inside, whole])
@pytest.mark.parametrize("field, exact", CLOSED_FORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_converge_with_their_order(name, field, exact, times):
    coarse, fine = (solver_error(name, field, exact, times(steps)) for steps in (320, 640))
    assert abs(math.log2(coarse / fine) - ORDERS[name]) < 0.1


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 3, 25])
def test_solvers_are_exact_on_straight_lines(name, steps):
    x = torch.randn(2, 16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    end = SOLVERS[name](lambda x, t: torch.full_like(x, 0.7), x, time_steps(steps), lambda *_: None)
    torch.testing.assert_close(end, x - 0.7, rtol=0, atol=1e-13)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_evaluate_as_often_as_they_say_and_never_at_the_end(name, schedule):
    times = evaluation_times(name, time_steps(8, schedule=schedule))
    assert len(times) == {"heun": 15, "midpoint": 16}.get(name, 8)
    assert min(times) > 0 and max(times) == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("strength, count", [(1.0, 10), (0.35, 4), (0.05, 1), (0.0, 0)])
def test_times_fall_to_zero(schedule, strength, count):
    times = time_steps(10, strength, schedule)
    assert len(times) == count + 1 and times[-1] == 0.0
    assert all(a > b for a, b in pairwise(times))
    if schedule != "uniform" and count:
        assert times[0] == pytest.approx(strength)


def test_schedules_put_the_steps_where_they_say():
    middle = {name: time_steps(10, schedule=name)[5] for name in SCHEDULES}
    assert middle == pytest.approx({"uniform": 0.5, "shifted": 0.75, "cosine": 0.5})
    steps = [a - b for a, b in pairwise(time_steps(10, schedule="cosine"))]
    assert steps[0] == pytest.approx(steps[-1]) and steps[0] < 0.3 * steps[5]


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match="schedules uniform, shifted, cosine, got 'linear'"):
        time_steps(10, schedule="linear")
