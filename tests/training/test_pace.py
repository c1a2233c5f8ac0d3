"""The time that is left of a run."""
from __future__ import annotations

import pytest

from pit.training import pace
from pit.training.pace import Pace, duration


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The present second, as its only element."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_the_pace_counts_from_the_first_step_that_was_told(clock):
    run = Pace()
    assert run.seconds_left(501, 1000) is None
    clock[0] += 20
    assert run.seconds_left(511, 1000) == pytest.approx(2 * 489)
    clock[0] += 80
    assert run.seconds_left(521, 1000) == pytest.approx(5 * 479)


def test_at_the_end_nothing_is_left(clock):
    run = Pace()
    run.seconds_left(1, 2)
    clock[0] += 1
    assert run.seconds_left(2, 2) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3599, "1 h 0 min"),
     (12000, "3 h 20 min"), (86399, "1 d 0 h"), (190800, "2 d 5 h")],
)
def test_durations_are_as_rough_as_an_estimate(seconds, text):
    assert duration(seconds) == text
