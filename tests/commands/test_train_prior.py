"""`python -m pit train-prior`, alone and as two processes."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from pit.__main__ import main
from pit.piece_it_together.prior_files import load_prior
from pit.training.metrics import read_points

ROOT = Path(__file__).parents[2]
SIZES = ["--hidden-dim", "32", "--layers", "2", "--heads", "2", "--cpu"]
RUN = [*SIZES, "--preset", "recommended", "--precision", "fp32", "--steps", "6", "--save-every", "3",
       "--validate-every", "3"]


def arguments(cache, folder, *more):
    return ["train-prior", str(cache.folder), str(folder), *RUN, *more]


def launched(processes, command):
    # For CPUs alone accelerate starts one process; this flag means several, --cpu keeps them off any GPU.
    flags = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
             "--mixed_precision", "no", "--dynamo_backend", "no",
             "--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m"]
    return subprocess.run([*launcher, *command], cwd=ROOT, capture_output=True, text=True, timeout=200)


def faulty(cache, folder, fault):
    """What two processes told, of which the second is at fault: last step, kind of error, error."""
    done = launched(2, ["tests.training.two_processes", str(cache.folder), str(folder / "run"), fault])
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{fault} {rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, cache):
    assert main(arguments(cache, tmp_path / "one", "--batch", "8")) == 0
    two = launched(2, ["pit", *arguments(cache, tmp_path / "two", "--batch", "4")])
    assert two.returncode == 0, two.stderr[-3000:]
    assert '"processes": 2' in (tmp_path / "two" / "run.json").read_text()
    for one, two in zip(read_points(tmp_path / "one"), read_points(tmp_path / "two"), strict=True):
        assert one.step == two.step
        assert one.validation == pytest.approx(two.validation, rel=1e-4)
        assert one.loss is None or one.loss == pytest.approx(two.loss, rel=1e-4)
    one, two = (load_prior(tmp_path / name / "prior.safetensors").state_dict() for name in ("one", "two"))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def test_two_processes_stop_together_and_refuse_to_go_on_apart(tmp_path, cache):
    first, second = faulty(cache, tmp_path, "cancel")
    assert first[:2] == [[4], "KeyboardInterrupt"] and second[:2] == [[4], "Cancelled"]
    for reached, kind, error in faulty(cache, tmp_path, "elsewhere"):
        assert (reached, kind) == ([], "ValueError") and "different checkpoints" in error
        assert "[4, -1]" in error


def test_the_command_trains_and_draws_its_chart(tmp_path, cache, capsys):
    assert main(arguments(cache, tmp_path, "--batch", "2", "--preset", "published", "--verify")) == 0
    out = capsys.readouterr().out
    assert "59 concepts to train on, 1 held out; from step 0" in out
    assert f"written: {tmp_path / 'prior.safetensors'}" in out
    with Image.open(tmp_path / "training.png") as chart:
        assert chart.size == (960, 400) and len(chart.getcolors(maxcolors=10**6)) > 10
    assert [point.step for point in read_points(tmp_path)] == [3, 6]


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
    until = time.monotonic() + 100
    while not (tmp_path / "checkpoints").exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGINT)
    assert "resumes from" in child.communicate(timeout=60)[1] and child.returncode == 130
    saved = max(int(path.name.removeprefix("step_")) for path in (tmp_path / "checkpoints").iterdir())
    assert saved >= 3
    assert main(arguments(cache, tmp_path, "--batch", "2", "--steps", str(saved + 1))) == 0
