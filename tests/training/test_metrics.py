"""Figures on disk, and their chart."""
from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pit.training.metrics import Metrics, Point, read_points
from pit.training.validation import TIMES, Validation

SOME = Validation(0.5, tuple(t for t in TIMES))


def test_figures_come_back(tmp_path):
    metrics = Metrics(tmp_path, 0, active=True)
    metrics.write(20, 1.5, None, 1e-4)
    metrics.write(40, 1.25, SOME, 1e-4)
    assert read_points(tmp_path) == [Point(20, 1.5, None), Point(40, 1.25, 0.5, TIMES)]


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    metrics = Metrics(tmp_path, 0, active=True)
    for step in (20, 40, 60):
        metrics.write(step, 1.0, None, 1e-4)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("80,0.9")  # cut off by a kill
    Metrics(tmp_path, 40, active=True).open()
    assert [point.step for point in read_points(tmp_path)] == [20, 40]


@pytest.mark.parametrize("damage", [
    b"80,0.9", b"x,1,2\r\n", b"\x00" * 100, b"80" + b"," * 11 + b"x\r\n", b"\xff\xfe\r\n",
    b"1" * 200_000 + b"\r\n",
    b"80,1,1,0.5" + b"," * 8 + b"\r\n", b'"' * 99 + b"\r\n", b"80,1,1" + b"," * 99 + b"\r\n",
])
def test_damaged_lines_are_left_out(tmp_path, damage):
    metrics = Metrics(tmp_path, 0, active=True)
    metrics.write(20, 1.0, SOME, 1e-4)
    with open(tmp_path / "metrics.csv", "ab") as file:
        file.write(damage)
    assert [point.step for point in read_points(tmp_path)] == [20]
    Metrics(tmp_path, 40, active=True).open()
    assert [point.step for point in read_points(tmp_path)] == [20]


def test_tensorboard_gets_the_figures_too(tmp_path):
    metrics = Metrics(tmp_path, 0, active=True)
    metrics.write(40, 1.25, SOME, 1e-4)
    metrics.board.close()
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in log.Scalars("loss")] == [1.25]
    assert [event.step for event in log.Scalars("validation")] == [40]


def test_another_process_writes_nothing(tmp_path):
    Metrics(tmp_path, 0, active=False).write(20, 1.0, SOME, 1e-4)
    assert not list(tmp_path.iterdir())
