"""Figures on disk, and their chart."""
from __future__ import annotations

import csv
import errno
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pit.training import metrics as metrics_module
from pit.training.metrics import Metrics, Point, read_lines, read_points
from pit.training.validation import TIMES, Validation

SOME = Validation(0.5, tuple(t for t in TIMES))


def test_figures_come_back(tmp_path):
    metrics = Metrics(tmp_path, 0, active=True)
    metrics.write(20, 1.5, None, 1e-4)
    metrics.write(40, 1.25, SOME, 1e-4)
    assert read_points(tmp_path) == [Point(20, 1.5, None, None, 1e-4), Point(40, 1.25, 0.5, TIMES, 1e-4)]


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


@pytest.fixture
def written(tmp_path):
    """The file of a run with two lines."""
    metrics = Metrics(tmp_path, 0, active=True)
    metrics.write(20, 0.1234, None, 1e-4)
    metrics.write(40, 0.4567, SOME, 1e-4)
    return tmp_path / "metrics.csv"


def test_a_line_that_is_cut_anywhere_is_left_out_and_replaced(written, tmp_path):
    """Also within its last number: 0.93 of 0.9375 has as many fields and looks like a figure."""
    whole = written.read_bytes()
    start = whole.rindex(b"40,0.4567")
    for end in range(start, len(whole)):
        written.write_bytes(whole[:end])
        assert [line["step"] for line in read_lines(written)] == ["20"], whole[start:end]
        assert [point.step for point in read_points(tmp_path)] == [20]
        metrics = Metrics(tmp_path, 30, active=True)
        metrics.begin_file()
        metrics.append([40, 0.5, 1e-4, "", *[""] * len(TIMES)])
        assert [point.loss for point in read_points(tmp_path)] == [0.1234, 0.5]


@pytest.mark.parametrize(
    "damage",
    [b"60,0.1x,0.0001" + b"," * 9 + b"\r\n", b"\0" * 50 + b"\r\n", b"\xff\xfe\r\n", b"60,1,2\r\n",
     b"step," + b"," * 10 + b"\r\n", b"60,0.5,0.0001,0.5" + b"," * 8 + b"\r\n", b"60" + b"," * 30 + b"\r\n"],
)
def test_a_damaged_line_hides_no_other(written, tmp_path, damage):
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join([*lines[:2], damage, lines[2]]))
    assert [point.step for point in read_points(tmp_path)] == [20, 40]


@pytest.mark.parametrize("content", [b"", b"step,lo", b"\r\n", b"a,b\r\n1,2\r\n", b"\0\0\0"])
def test_a_file_without_its_head_has_no_lines(written, tmp_path, content):
    written.write_bytes(content)
    assert read_points(tmp_path) == []
    Metrics(tmp_path, 40, active=True).write(60, 1.0, None, 1e-4)
    assert [point.step for point in read_points(tmp_path)] == [60]


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["write_whole", "open"])
def test_a_full_disk_in_the_figures_is_told_once_and_ends_nothing(tmp_path, monkeypatch, caplog, failing):
    monkeypatch.setattr(metrics_module, failing, full, raising=False)
    metrics = Metrics(tmp_path, 0, active=True)
    for step in (20, 40, 60):
        metrics.write(step, 1.0, SOME, 1e-4)
    told = [record.message for record in caplog.records if "goes on without metrics.csv" in record.message]
    assert len(told) == 1 and "No space left on device" in told[0]
    metrics.board.close()
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in log.Scalars("loss")] == [20, 40, 60]


@pytest.mark.parametrize("failing", ["open_tensorboard", "write", "flush"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), TypeError("protobuf")])
def test_a_failing_tensorboard_is_told_once_and_ends_nothing(tmp_path, monkeypatch, caplog, failing, error):
    def fails(*_args, **_kwargs):
        raise error

    metrics = Metrics(tmp_path, 0, active=True)
    if failing == "open_tensorboard":
        monkeypatch.setattr(metrics_module, failing, fails)
    else:
        metrics.open()
        # Where TensorBoard's own thread writes and flushes its file.
        monkeypatch.setattr(metrics.board.file_writer.event_writer._async_writer._writer, failing, fails)
        monkeypatch.setattr("threading.excepthook", lambda hooked: None)
    for step in (20, 40, 60, 80):
        metrics.write(step, 1.0, SOME, 1e-4)
    told = [record.message for record in caplog.records if "goes on without TensorBoard" in record.message]
    assert len(told) == 1 and str(error) in told[0]
    assert [point.step for point in read_points(tmp_path)] == [20, 40, 60, 80]


def test_learning_rates_are_readable_everywhere(tmp_path):
    metrics = Metrics(tmp_path, 0, active=True)
    rates = [4e-4, 0.1 * 3 * 1e-3, 0.00039999999999999996, 1e-5 / 3]
    for number, rate in enumerate(rates):
        metrics.write(20 + number, 1.0, None, rate)
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [line["learning_rate"] for line in csv.DictReader(file)] == [
            "0.0004", "0.0003", "0.0004", "3.33333e-06"]
    assert [point.rate for point in read_points(tmp_path)] == [4e-4, 3e-4, 4e-4, 3.33333e-06]
