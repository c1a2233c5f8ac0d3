"""Several processes train as one."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pit.__main__ import main
from pit.demo.datasets import write_scene_dataset
from pit.files.lora import read_lora
from pit.piece_it_together.prior_files import load_prior
from pit.training.metrics import read_points
from tests.training.two_processes import LORA, PRIOR

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_scene_dataset(folder, 4, 0)
    return folder


@pytest.fixture(scope="module")
def launched(tmp_path_factory, cache, pictures) -> Path:
    """The folder in which two processes have trained, see `two_processes`."""
    folder = tmp_path_factory.mktemp("two")
    # For CPUs alone accelerate starts one process; this flag means several, --cpu keeps them off any GPU.
    flags = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
             "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m"]
    script = ["tests.training.two_processes", cache.folder, pictures, folder]
    done = subprocess.run([*launcher, *map(str, script)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def told(launched: Path, fault: str) -> list:
    """Last step, kind of error and error of each process."""
    return [json.loads((launched / f"{fault} {rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_stop_together(launched):
    first, second = told(launched, "cancel")
    assert first[:2] == [[4], "KeyboardInterrupt"] and second[:2] == [[4], "Cancelled"]


def test_two_processes_refuse_to_resume_apart(launched):
    for reached, kind, error in told(launched, "elsewhere"):
        assert (reached, kind) == ([], "ValueError") and "different checkpoints" in error
        assert "[4, -1]" in error


def test_two_processes_train_a_prior_as_one_with_twice_the_batch(tmp_path, cache, launched):
    assert main(["train-prior", str(cache.folder), str(tmp_path), *PRIOR, "--batch", "8"]) == 0
    assert '"processes": 2' in (launched / "prior" / "run.json").read_text()
    for one, two in zip(read_points(tmp_path), read_points(launched / "prior"), strict=True):
        assert one.step == two.step
        assert one.validation == pytest.approx(two.validation, rel=1e-4)
        assert one.loss is None or one.loss == pytest.approx(two.loss, rel=1e-4)
    one, two = (load_prior(run / "prior.safetensors").state_dict() for run in (tmp_path, launched / "prior"))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def test_two_processes_train_an_ip_lora_as_one_with_twice_the_batch(tmp_path, pictures, launched):
    assert main(["train-ip-lora", str(pictures), str(tmp_path), *LORA, "--batch", "2"]) == 0
    for one, two in zip(read_points(tmp_path), read_points(launched / "lora"), strict=True):
        assert one.validation == pytest.approx(two.validation, rel=1e-4)
    one, two = (lora_of(folder) for folder in (tmp_path, launched / "lora"))
    assert one.keys() == two.keys()
    for key in one:
        # AdamW makes as large a step of a gradient that is all but zero, whose sign is chance.
        assert (one[key] - two[key]).norm() <= 1e-2 * one[key].norm(), key


def lora_of(folder: Path) -> dict[str, torch.Tensor]:
    lora = read_lora(folder / "ip_lora.safetensors")
    return lora.unet | lora.adapter
