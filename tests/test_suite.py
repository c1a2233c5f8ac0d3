"""What `python3 dev.py test` runs, on small suites of its own."""

import re
import signal
import subprocess
import sys

import pytest

from dev import ROOT, suite
from tests.test_dev import heed_signals, is_alive
from tests.waiting import STUCK_SECONDS, wait_until

HALVES = {"one": ("test_one.py",), "two": ("test_two.py",)}
PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    left = 3\n    assert left == 4\n"
WAITS = """
import os, pathlib, threading, pytest

@pytest.fixture
def server():
    yield
    pathlib.Path(__file__).with_suffix(".ended").touch()

def test_waits(server):
    pathlib.Path(__file__).with_suffix(".pid").write_text(f"{os.getpid()}\\n")
    threading.Event().wait()
"""
DRIVER = """
import pathlib, sys
from dev import suite
suite.ROOT = pathlib.Path(sys.argv[1])
suite.run_suite({"one": ("test_one.py",), "two": ("test_two.py",)})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    return tmp_path


def write(folder, one: str, two: str) -> None:
    (folder / "test_one.py").write_text(one)
    (folder / "test_two.py").write_text(two)


def test_both_halves_are_run_and_their_slowest_tests_are_one_list(folder, capsys):
    slow = "import time\n\n\ndef test_sleeps():\n    time.sleep(0.02)\n"
    write(folder, PASSES + slow.replace("sleeps", "first"), slow.replace("0.02", "0.06") + PASSES)
    assert suite.run_suite(HALVES) == 0
    progress, _, slowest = capsys.readouterr().out.partition(f" the slowest {suite.SLOWEST} ")
    for name in HALVES:
        assert re.search(rf"^{name}     \| test_{name}.py \.\. +\[100%]$", progress, re.MULTILINE)
    assert progress.count("2 passed") == 2 and "slowest" not in progress
    listed = re.findall(r"^[\d.]+s call +(.*)$", slowest, re.MULTILINE)
    assert listed == ["test_two.py::test_sleeps", "test_one.py::test_first"]


@pytest.mark.parametrize("failing", [(FAILS, PASSES), (PASSES, FAILS)])
def test_a_failure_in_either_half_is_told_whole_and_in_the_exit_code(folder, capsys, failing):
    write(folder, *failing)
    assert suite.run_suite(HALVES) == 1
    printed = capsys.readouterr().out
    assert "    def test_fails():\n        left = 3\n>       assert left == 4\nE       assert 3 ==" in printed
    assert "1 failed" in printed and "1 passed" in printed


def test_a_half_that_cannot_start_fails(folder, capsys):
    (folder / "test_one.py").write_text(PASSES)
    assert suite.run_suite(HALVES) == 1
    assert "not found: test_two.py" in capsys.readouterr().out.replace(f"{folder}/", "")


def test_without_ruffs_consent_no_test_runs(folder, capfd):
    write(folder, "import os\n" + PASSES, PASSES)
    assert suite.run_suite(HALVES) == 1
    printed = capfd.readouterr().out
    assert "F401" in printed and "passed" not in printed


def test_ctrl_c_ends_both_halves_in_order(tmp_path):
    write(tmp_path, WAITS, WAITS)
    (tmp_path / "ruff.toml").write_text("exclude = ['*']\n")
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=heed_signals,
    )
    notes = [tmp_path / "test_one.pid", tmp_path / "test_two.pid"]
    wait_until(lambda: process.poll() is not None or all(map(is_written, notes)))
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=STUCK_SECONDS)
    assert process.returncode != 0 and errors.strip().endswith("KeyboardInterrupt")
    assert all((tmp_path / f"test_{name}.ended").exists() for name in HALVES), printed
    assert not any(is_alive(int(note.read_text())) for note in notes)


def is_written(note) -> bool:
    return note.exists() and note.read_text().endswith("\n")
