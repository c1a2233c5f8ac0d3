"""A start that fails leaves nothing behind that would refuse the advised smaller batch."""
from __future__ import annotations

from dataclasses import replace

import pytest
from accelerate import Accelerator

from pit.files.weights import WeightFileError
from pit.piece_it_together.training import task as task_module
from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import new_prior
from pit.piece_it_together.training.task import PriorTask
from pit.training import trainer as trainer_module
from pit.training.recipes import RunSettings
from pit.training.run_folder import RUN
from pit.training.trainer import Trainer, TrainingError

RECIPE = replace(RECOMMENDED, steps=4, batch=4, precision="fp32")
SMALLER = replace(RECIPE, batch=2, accumulation=2)


def trainer_of(folder, cache, recipe):
    prior, config = new_prior(cache, Sizes(32, 2, 2), seed=0)
    settings = RunSettings(folder, save_every=2, validate_every=2)
    return Trainer(PriorTask(prior, config, cache, recipe, settings), recipe, settings, Accelerator(cpu=True))


def finish(folder, cache, recipe):
    return trainer_of(folder, cache, recipe).run(lambda progress: None)


def test_the_constructor_writes_nothing(tmp_path, cache):
    trainer_of(tmp_path / "run", cache, RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_at_first_leaves_the_name_free(tmp_path, cache, monkeypatch):
    def short_of_memory(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(task_module, "batch_loss", short_of_memory)
        with pytest.raises(TrainingError, match='preset "8 GB card" does both. No checkpoint'):
            finish(tmp_path / "run", cache, RECIPE)
    assert not (tmp_path / "run" / RUN).exists()
    assert finish(tmp_path / "run", cache, SMALLER).is_file()


def test_a_disk_that_is_full_at_the_first_checkpoint_leaves_the_name_free(tmp_path, cache, monkeypatch):
    def full(*_):
        raise WeightFileError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "write_checkpoint", full)
        with pytest.raises(WeightFileError, match="No space left"):
            finish(tmp_path / "run", cache, RECIPE)
    assert not (tmp_path / "run" / RUN).exists()
    assert finish(tmp_path / "run", cache, SMALLER).is_file()


def test_a_disk_that_is_full_later_leaves_the_run_what_it_is(tmp_path, cache, monkeypatch):
    finish(tmp_path / "run", cache, replace(RECIPE, steps=2))

    def full(*_):
        raise WeightFileError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "write_checkpoint", full)
        with pytest.raises(WeightFileError):
            finish(tmp_path / "run", cache, RECIPE)
    with pytest.raises(ValueError, match="batch was 4 and is now 2"):
        finish(tmp_path / "run", cache, SMALLER)
