"""What version 0.5.0 has written still loads: tokens, directions, priors, caches, runs, and a workflow.

The files were written by that version with the tiny models of `tests/training`, on another machine.
"""
from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from pit.concepts.token_files import read_direction, read_tokens
from pit.piece_it_together.ip_lora.cache import encode_lora_dataset
from pit.piece_it_together.ip_lora.dataset import read_lora_dataset
from pit.piece_it_together.ip_lora.recipes import PUBLISHED
from pit.piece_it_together.ip_lora.task import LoraTask
from pit.piece_it_together.prior_files import load_prior
from pit.piece_it_together.training.cache import open_cache
from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import begin
from pit.training.denoising import noise_schedule
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.training.tiny_renderer import tiny_encoders, tiny_renderer, write_pictures

OLD = Path(__file__).with_name("files_of_0_5_0")
PRIOR_RECIPE = replace(RECOMMENDED, steps=12, batch=4, precision="fp32")
LORA_RECIPE = replace(PUBLISHED, steps=12, batch=2, accumulation=1, rank=2)


@pytest.fixture
def old(tmp_path) -> Path:
    """A copy to go on with."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def prior_trainer(folder: Path, seed: int = 0) -> Trainer:
    settings = RunSettings(folder, seed, save_every=8, validate_every=8)
    return begin(OLD / "cache", Sizes(16, 1, 2), PRIOR_RECIPE, settings, cpu=True)


def lora_trainer(folder: Path, samples: Path, seed: int = 0) -> Trainer:
    pictures = write_pictures(folder.parent / "pictures")
    dataset = read_lora_dataset(pictures, "captions as they are")
    cache, _ = encode_lora_dataset(dataset.samples, samples, tiny_encoders(), 16)
    settings = RunSettings(folder, seed, save_every=8, validate_every=8)
    task = LoraTask(tiny_renderer(), noise_schedule(), cache, LORA_RECIPE, settings)
    return Trainer(task, LORA_RECIPE, settings, Accelerator(cpu=True))


def test_tokens_and_directions_load_with_all_that_was_known_of_them():
    tokens = read_tokens(OLD / "tokens.safetensors", "old")
    assert (tokens.values.shape, tokens.features.shape) == ((2, 16, 8), (2, 9, 5))
    assert tokens.source == "old, Encode IP+ Image with tiny"
    assert (tokens.adapter, tokens.notes) == ("0123456789abcdef", {"encoder": "clip"})
    direction = read_direction(OLD / "direction.safetensors", "old")
    assert (direction.space, direction.deviation, direction.recommended) == ("tokens", 0.5, 1.25)
    assert (direction.adapter, direction.notes) == ("0123456789abcdef", {"method": "shrinkage"})


def test_a_prior_and_a_cache_open():
    assert load_prior(OLD / "prior.safetensors").head_dim == 8
    cache = open_cache(OLD / "cache", verify=True)
    assert len(cache) == 6 and cache.encoder.name == "tiny"


def test_a_run_of_a_prior_resumes_to_what_an_uninterrupted_one_gives(old):
    trainer = prior_trainer(old / "prior_run")
    assert trainer.state.step == 8 and not trainer.passed_over
    resumed = load_prior(trainer.run(lambda progress: None)).state_dict()
    whole = load_prior(prior_trainer(old / "whole").run(lambda progress: None)).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-5)


def test_a_run_of_an_ip_lora_resumes_and_is_compared_in_full_from_then_on(old):
    trainer = lora_trainer(old / "lora_run", old / "lora_samples")
    assert trainer.state.step == 8
    assert trainer.run(lambda progress: None) == old / "lora_run" / "ip_lora.safetensors"
    assert lora_trainer(old / "lora_run", old / "lora_samples").state.step == 12


@pytest.mark.parametrize("name", ["prior", "lora"])
def test_other_settings_of_an_old_run_are_refused_as_before(old, name):
    with pytest.raises(ValueError, match="seed was 0 and is now 1"):
        if name == "prior":
            prior_trainer(old / "prior_run", seed=1)
        else:
            lora_trainer(old / "lora_run", old / "lora_samples", seed=1)
