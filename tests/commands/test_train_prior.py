"""`python -m pit train-prior`."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pit.__main__ import main
from pit.training.checkpoint import checkpoint_folders
from pit.training.metrics import read_points
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SIZES = ["--hidden-dim", "32", "--layers", "2", "--heads", "2", "--cpu"]
RUN = [*SIZES, "--preset", "recommended", "--precision", "fp32", "--steps", "6", "--save-every", "3",
       "--validate-every", "3"]


def arguments(cache, folder, *more):
    return ["train-prior", str(cache.folder), str(folder), *RUN, *more]


def test_the_command_trains_and_draws_its_chart(tmp_path, cache, capsys):
    assert main(arguments(cache, tmp_path, "--batch", "2", "--preset", "published", "--verify")) == 0
    out = capsys.readouterr().out
    assert "59 concepts to train on, 1 held out; from step 0" in out
    assert f"written: {tmp_path / 'prior.safetensors'}" in out
    with Image.open(tmp_path / "training.png") as chart:
        assert chart.width == 960 and len(chart.getcolors(maxcolors=10**6)) > 10
    assert [point.step for point in read_points(tmp_path)] == [3, 6]


def test_ctrl_c_means_what_it_meant_once_the_command_has_ended(tmp_path, cache):
    before = signal.getsignal(signal.SIGINT)
    assert main(arguments(cache, tmp_path, "--batch", "2")) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_goes_on_from_a_file(tmp_path, cache, capsys):
    assert main(arguments(cache, tmp_path / "first", "--batch", "2")) == 0
    start = str(tmp_path / "first" / "prior.safetensors")
    assert main(arguments(cache, tmp_path / "second", "--batch", "2", "--start-from", start)) == 0
    assert "peak learning rate 0.00125" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "message"), [
    (["--batch", "0"], "Expected batch to be at least 1, got 0"),
    (["--start-from", "nowhere.safetensors"], "nowhere.safetensors: expected a weight file, got no such"),
    (["--optimizer", "schedule_free"], "set ema_decay to 0 and schedule to constant"),
])
def test_what_cannot_be_is_told_in_a_sentence(tmp_path, cache, capsys, change, message):
    assert main(arguments(cache, tmp_path, *change)) == 1
    assert message in capsys.readouterr().err


def test_a_folder_without_a_cache_is_told(tmp_path, capsys):
    assert main(["train-prior", str(tmp_path / "none"), str(tmp_path / "run"), *RUN]) == 1
    assert re.match("error: .*none", capsys.readouterr().err)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_ctrl_c_stops_between_steps_and_the_command_goes_on(tmp_path, cache):
    command = [sys.executable, "-m", "pit", *arguments(cache, tmp_path, "--batch", "2", "--steps", "100000")]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: checkpoint_folders(tmp_path / "checkpoints") or child.poll() is not None)
    os.kill(child.pid, signal.SIGINT)
    assert "resumes from" in child.communicate()[1] and child.returncode == 130
    saved = int(checkpoint_folders(tmp_path / "checkpoints")[0].name.removeprefix("step_"))
    assert saved >= 3
    assert main(arguments(cache, tmp_path, "--batch", "2", "--steps", str(saved + 1))) == 0
