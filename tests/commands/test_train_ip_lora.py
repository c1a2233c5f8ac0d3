"""`python -m pit train-ip-lora`, alone and as two processes, on the creature models."""
from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from pit.__main__ import main
from pit.demo.datasets import write_scene_dataset
from pit.files.lora import read_lora
from pit.training.metrics import read_points
from tests.commands.test_train_prior import ROOT, launched

RUN = ["--creatures", "--cpu", "--mode", "captions as they are", "--rank", "2", "--size", "64",
       "--steps", "4", "--save-every", "2", "--validate-every", "2", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_scene_dataset(folder, 4, 0)
    return folder


def arguments(pictures, folder, *more):
    return ["train-ip-lora", str(pictures), str(folder), *RUN, *more]


def state_of(folder):
    lora = read_lora(folder / "ip_lora.safetensors")
    return lora.unet | lora.adapter


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, pictures, capsys):
    assert main(arguments(pictures, tmp_path / "one", "--batch", "2", "--accumulation", "1")) == 0
    told = capsys.readouterr().out
    assert "4 targets with references" in told and "4 pictures to train on" in told
    assert (tmp_path / "one" / "training.png").is_file()
    two = launched(2, ["pit", *arguments(pictures, tmp_path / "two", "--batch", "1", "--accumulation", "1")])
    assert two.returncode == 0, two.stderr[-3000:]
    for one, other in zip(read_points(tmp_path / "one"), read_points(tmp_path / "two"), strict=True):
        assert one.validation == pytest.approx(other.validation, rel=1e-4)
    one, other = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert one.keys() == other.keys()
    for key in one:
        # AdamW makes as large a step of a gradient that is all but zero, whose sign is chance.
        assert (one[key] - other[key]).norm() <= 1e-2 * one[key].norm(), key


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, pictures):
    command = [sys.executable, "-m", "pit", *arguments(pictures, tmp_path, "--steps", "2000")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "checkpoints").glob("step_*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command resumes" in told
    step = max(int(path.name[5:]) for path in (tmp_path / "checkpoints").glob("step_*[0-9]"))
    assert main(arguments(pictures, tmp_path, "--steps", str(step + 1))) == 0
    assert state_of(tmp_path)


@pytest.mark.parametrize(("change", "message"), [
    (["--base", "x.safetensors"], "Expected --base, --vision and --ip-adapter, or --creatures alone"),
    (["--rank", "0"], "Expected rank to be at least 1, got 0"),
])
def test_what_does_not_fit_is_one_sentence(tmp_path, pictures, capsys, change, message):
    assert main(arguments(pictures, tmp_path, *change)) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_word_is_named(tmp_path, capsys):
    write_scene_dataset(tmp_path / "pictures", 1, 0)
    for path in (tmp_path / "pictures" / "targets").glob("*.txt"):
        path.write_text("a creature in a supermarket")
    assert main(arguments(tmp_path / "pictures", tmp_path / "run")) == 1
    assert "do not know the word 'supermarket'" in capsys.readouterr().err
