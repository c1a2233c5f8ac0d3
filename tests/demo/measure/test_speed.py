"""How long things take, by a clock that is made up."""

import time
from itertools import count

import pytest

from pit.demo.measure import speed
from pit.demo.measure.speed import drawings_a_second
from pit.demo.training.data import EMPTY


def test_drawings_are_timed_by_their_fastest_repeat(monkeypatch):
    spent = iter([0.5] * 3 + [0.01] * 3 + [0.2] * 3 * (speed.REPEATS - 2))
    monkeypatch.setattr(speed, "drawing_time", lambda composition: next(spent))
    estimate = drawings_a_second(EMPTY, 0, count=3)
    assert (estimate.value, estimate.count) == (pytest.approx(100), 3)
    assert (estimate.low, estimate.high) == (pytest.approx(100), pytest.approx(100))


def test_seconds_are_those_of_the_second_call(monkeypatch):
    ticks = count(0, 3)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    calls = []
    assert speed.seconds(lambda: calls.append(len(calls))) == 3 and calls == [0, 1]
