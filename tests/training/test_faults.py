"""What can go wrong with machine and people while a training runs."""
from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
import torch

from pit.files.lock import InUseError, only_process
from pit.files.weights import WeightFileError
from pit.piece_it_together.prior_files import load_prior
from pit.piece_it_together.training import task as task_module
from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import new_prior
from pit.piece_it_together.training.task import PriorTask
from pit.training import metrics as metrics_module
from pit.training import trainer as trainer_module
from pit.training.checkpoint import checkpoint_folders
from pit.training.launch import data_parallel
from pit.training.metrics import read_points
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer, TrainingError

RECIPE = replace(RECOMMENDED, steps=24, batch=4, precision="fp32", accumulation=2)
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError(),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you"),
]


class Cancelled(BaseException):
    """Like ComfyUI's, no Exception."""


def trainer_of(folder, cache, recipe=RECIPE):
    prior, config = new_prior(cache, Sizes(32, 2, 2), seed=0)
    settings = RunSettings(folder, save_every=8, validate_every=8)
    task = PriorTask(prior, config, cache, recipe, settings)
    return Trainer(task, recipe, settings, data_parallel(cpu=True))


def finish(folder, cache, recipe=RECIPE):
    return trainer_of(folder, cache, recipe).run(lambda progress: None)


def steps_saved(folder):
    return [int(path.name.removeprefix("step_")) for path in checkpoint_folders(folder / "checkpoints")]


def same(a, b):
    """Whether two files hold the same weights, bit for bit."""
    a, b = (load_prior(path).state_dict() for path in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def fails_with(error):
    def fails(*_args, **_kwargs):
        raise error

    return fails


# Too little memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS)
def test_too_little_memory_in_a_validation_is_advised_and_loses_no_step(tmp_path, cache, monkeypatch, error):
    monkeypatch.setattr(task_module, "validate", fails_with(error))
    with pytest.raises(TrainingError, match=r"^Out of memory in the validation at step 8\. Lower batch"):
        finish(tmp_path, cache)
    assert steps_saved(tmp_path) == [8]


@pytest.mark.parametrize("error", ERRORS)
def test_too_little_memory_in_a_save_is_advised(tmp_path, cache, monkeypatch, error):
    finish(tmp_path, cache, replace(RECIPE, steps=8))
    monkeypatch.setattr(trainer_module, "write_checkpoint", fails_with(error))
    with pytest.raises(TrainingError, match=r"^Out of memory in saving step 16\. Lower batch .* step 8 in"):
        finish(tmp_path, cache)
    assert steps_saved(tmp_path) == [8]


@pytest.mark.parametrize("error", ERRORS)
def test_too_little_memory_for_the_result_is_advised(tmp_path, cache, monkeypatch, error):
    monkeypatch.setattr(task_module, "save_prior", fails_with(error))
    with pytest.raises(TrainingError, match=r"^Out of memory in writing prior\.safetensors\."):
        finish(tmp_path, cache)
    assert steps_saved(tmp_path)[0] == 24


@pytest.mark.parametrize("error", ERRORS)
def test_too_little_memory_before_the_first_step_is_advised(tmp_path, cache, monkeypatch, error):
    monkeypatch.setattr(trainer_module, "TrainingState", fails_with(error))
    with pytest.raises(TrainingError, match="^Out of memory at the start. Lower batch .* No checkpoint was"):
        trainer_of(tmp_path, cache)


def test_where_nothing_smaller_is_left_the_advice_is_another(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(task_module, "batch_loss", fails_with(ERRORS[0]))
    smallest = replace(RECIPE, batch=1, gradient_checkpointing=True)
    with pytest.raises(TrainingError) as raised:
        finish(tmp_path, cache, smallest)
    assert "Lower batch" not in str(raised.value) and "turn gradient_checkpointing" not in str(raised.value)
    assert "Close other programs" in str(raised.value) and '"adafactor"' in str(raised.value)
    with pytest.raises(TrainingError) as raised:
        finish(tmp_path, cache, replace(smallest, optimizer="adafactor"))
    assert "adafactor" not in str(raised.value) and "LoRA of a lower rank" in str(raised.value)


# A full disk ----------------------------------------------------------------------------------------------


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_without_room_for_figures_ends_no_training(tmp_path, cache, monkeypatch):
    for name in ("write_whole", "open", "open_tensorboard"):
        monkeypatch.setattr(metrics_module, name, full, raising=False)
    assert load_prior(finish(tmp_path, cache)).head_dim == 16
    assert not (tmp_path / "metrics.csv").exists()


def test_a_disk_that_is_full_at_first_leaves_nothing(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightFileError, match=r"Expected room for the [\d,]+ bytes of .*run\.json") as told:
        finish(tmp_path / "run", cache)
    assert "Free some space" in str(told.value)
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [name for name in left if not name.startswith("events.out")]  # TensorBoard's own
    monkeypatch.undo()
    assert finish(tmp_path / "run", cache, replace(RECIPE, batch=2)).is_file()


# Two processes --------------------------------------------------------------------------------------------


def test_a_second_training_is_told_and_the_first_goes_on_untouched(tmp_path, cache):
    whole, told = finish(tmp_path / "whole", cache), []
    second = trainer_of(tmp_path / "run", cache)

    def on_step(progress):
        if progress.step == 10:
            with pytest.raises(InUseError, match="Expected no other process at work in ") as raised:
                second.run(lambda progress: pytest.fail("a step was done"))
            told.append(str(raised.value))

    first = trainer_of(tmp_path / "run", cache).run(on_step)
    assert told and same(first, whole)


def test_a_training_that_waited_goes_on_from_what_the_other_saved(tmp_path, cache):
    late = trainer_of(tmp_path / "run", cache)
    finish(tmp_path / "run", cache, replace(RECIPE, steps=16))
    seen = []
    result = late.run(lambda progress: seen.append(progress.step))
    assert seen == list(range(17, 25))
    assert same(result, finish(tmp_path / "whole", cache))
    assert [point.step for point in read_points(tmp_path / "run")] == [8, 16, 20, 24]


def test_a_training_that_waited_for_one_of_other_settings_is_refused(tmp_path, cache):
    late = trainer_of(tmp_path, cache, replace(RECIPE, batch=2))
    finish(tmp_path, cache)
    with pytest.raises(ValueError, match="batch was 4 and is now 2"):
        late.run(lambda progress: None)


def test_a_training_lets_others_in_when_it_ends_or_fails(tmp_path, cache, monkeypatch):
    finish(tmp_path, cache, replace(RECIPE, steps=8))
    monkeypatch.setattr(task_module, "batch_loss", fails_with(ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault"):
        finish(tmp_path, cache)
    with only_process(tmp_path):
        pass


# Canceling in the middle ----------------------------------------------------------------------------------


def canceled_after(folder, cache, looks, recipe=RECIPE):
    """Train until `interrupt` has been asked so many times; the number of looks that there were."""
    seen = 0

    def interrupt():
        nonlocal seen
        seen += 1
        if seen == looks:
            raise Cancelled

    trainer_of(folder, cache, recipe).run(lambda progress: None, interrupt)
    return seen


@pytest.mark.parametrize("checkpointing", [False, True])
def test_canceling_anywhere_in_a_step_is_as_never_having_stopped(tmp_path, cache, checkpointing):
    """Before any layer, in the forward or the backward pass, or in a validation."""
    recipe = replace(RECIPE, gradient_checkpointing=checkpointing)
    whole = finish(tmp_path / "whole", cache, recipe)
    for looks in (1, 2, 30, 71, 150, 400, 1001):
        with pytest.raises(Cancelled):
            canceled_after(tmp_path / "run", cache, looks, recipe)
    before = steps_saved(tmp_path / "run")[0]
    assert 0 < before < 24
    parts = finish(tmp_path / "run", cache, recipe)
    assert same(parts, whole)
    assert {p.step: p.loss for p in read_points(tmp_path / "run")} == {
        p.step: p.loss for p in read_points(tmp_path / "whole")}


def test_canceling_before_the_first_step_leaves_nothing(tmp_path, cache):
    with pytest.raises(Cancelled):
        canceled_after(tmp_path / "run", cache, 3)
    assert not (tmp_path / "run").exists()


def test_canceling_a_validation_keeps_the_step_and_its_loss(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(task_module, "validate", fails_with(Cancelled()))
    with pytest.raises(Cancelled):
        finish(tmp_path, cache, replace(RECIPE, steps=8))
    assert steps_saved(tmp_path) == [8]
    [point] = read_points(tmp_path)
    assert point.step == 8 and point.loss is not None and point.validation is None


def test_what_looks_into_a_step_is_taken_away_again(tmp_path, cache):
    trainer = trainer_of(tmp_path, cache)
    trainer.run(lambda progress: None, lambda: None)
    assert not any(module._forward_pre_hooks for module in trainer.state.model.modules())
    assert not any(each._post_accumulate_grad_hooks for each in trainer.state.model.parameters())
