"""The training of the miniature models, in a few steps: it resumes exactly, and writes what loaders read."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pit.commands.demo_train import add_arguments, run
from pit.demo.training import autoencoder, encoder, prior, reader, stage, unet
from pit.demo.training.data import open_dataset
from pit.demo.training.stage import Run, Stage, learning_rate_factor, train_stage
from pit.ip_adapter.files import load_ip_adapter
from pit.piece_it_together.prior_files import load_prior

STAGE = Stage("toy", steps=12, batch=4, learning_rate=1e-2, warmup=3)


class Stopped(Exception):
    """Stands for a run that is cut off."""


def toy_run(folder) -> Run:
    return Run(folder, torch.device("cpu"), torch.float32, seed=1)


def train_toy(folder, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)

    def loss_at(step, generator):
        if step == stop_at:
            raise Stopped
        return model(torch.randn(4, 3, generator=generator)).square().mean()

    return train_stage(toy_run(folder), STAGE, model, loss_at).state_dict()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = train_toy(tmp_path / "a")
    monkeypatch.setattr(stage, "SAVE_SECONDS", -1)
    with pytest.raises(Stopped):
        train_toy(tmp_path / "b", stop_at=7)
    resumed = train_toy(tmp_path / "b")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    factors = [learning_rate_factor(step, STAGE) for step in range(STAGE.steps + 1)]
    assert factors[0] == pytest.approx(1 / 3) and max(factors) == 1 and factors[-1] == pytest.approx(0)


def test_the_learning_rate_can_stay_high_and_fall_at_the_end():
    late = replace(STAGE, steps=24, decay=0.25)
    factors = [learning_rate_factor(step, late) for step in range(late.steps + 1)]
    assert factors[3:19] == [1.0] * 16 and factors[21] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0)


def test_a_half_drawn_data_set_resumes_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("pit.demo.training.data.CHUNK", 5)
    whole = open_dataset(tmp_path / "a", 20, 3, 1, lambda done: None)

    def stop(done):
        if done == 10:
            raise Stopped

    with pytest.raises(Stopped):
        open_dataset(tmp_path / "b", 20, 3, 1, stop)
    resumed = open_dataset(tmp_path / "b", 20, 3, 1, lambda done: None)
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(ValueError, match="Expected a data set of .* got one of"):
        open_dataset(tmp_path / "b", 20, 4, 1, lambda done: None)


def test_latents_have_unit_spread_after_standardizing(tmp_path):
    torch.manual_seed(0)
    model = autoencoder.build_autoencoder().eval()
    pictures = np.random.default_rng(0).integers(0, 255, (6, 128, 128, 3), np.uint8)
    before = model.decode(autoencoder.encode_pictures(model, pictures, torch.device("cpu"))).sample.detach()
    model = autoencoder.standardize_latents(toy_run(tmp_path), model, {"pictures": pictures})
    latents = autoencoder.encode_pictures(model, pictures, torch.device("cpu"))
    assert torch.allclose(latents.std(dim=(0, 2, 3)) * autoencoder.LATENT_SCALE, torch.ones(4), atol=1e-3)
    assert torch.allclose(model.decode(latents).sample, before, atol=1e-3)


def test_the_whole_command_trains_and_exports(tmp_path, monkeypatch):
    for module in (reader, encoder, autoencoder, unet):
        monkeypatch.setattr(module, "STAGE", replace(module.STAGE, steps=1, batch=2))
    monkeypatch.setattr(prior, "RECIPE", replace(prior.RECIPE, steps=1, batch=2))
    monkeypatch.setattr(encoder, "PART_BATCH", 2)
    monkeypatch.setattr(reader, "FLAWED", 2)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = [
        "--folder", str(tmp_path / "run"), "--weights", str(tmp_path / "weights"), "--creatures", "4",
        "--workers", "1", "--device", "cpu", "--precision", "fp32",
    ]
    assert run(parser.parse_args(flags)) == 0
    names = ("ip_adapter", "ip_prior", "preview", "reader", "renderer", "vision")
    written = {path.name for path in (tmp_path / "weights").iterdir()}
    assert written == {f"creature_{name}.safetensors" for name in names}
    adapter = load_ip_adapter(tmp_path / "weights" / "creature_ip_adapter.safetensors")
    ip_prior = load_prior(tmp_path / "weights" / "creature_ip_prior.safetensors")
    tokens = adapter.float().resampler(torch.randn(2, 64, 192))
    assert ip_prior.float()(tokens, torch.ones(2), torch.randn(2, 48, tokens.shape[-1])).shape == tokens.shape
