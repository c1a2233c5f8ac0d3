"""The training of the miniature models, in a few steps: it resumes exactly, and writes what loaders read."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pit.commands.demo_train import add_arguments, run
from pit.demo.drawing.composition import THING_LABEL, draw_map
from pit.demo.models.autoencoder import CreatureAutoencoder
from pit.demo.training import autoencoder, encoder, importance, prior, reader, stage, text_unet, unet
from pit.demo.training.data import KINDS, open_dataset, training_picture
from pit.demo.training.importance import importance_of, part_importance
from pit.demo.training.stage import Run, Stage, learning_rate_factor, train_stage
from pit.demo.training.truth import UNSEEN, picture_truth
from pit.ip_adapter.files import load_ip_adapter
from pit.piece_it_together.prior_files import load_prior
from pit.training.denoising import noise_schedule

STAGE = Stage("toy", steps=12, batch=4, learning_rate=1e-2, warmup=3)


class Stopped(Exception):
    """Stands for a run that is cut off."""


def toy_run(folder) -> Run:
    return Run(folder, torch.device("cpu"), torch.float32, seed=1)


def train_toy(folder, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(24, 16)  # wide enough for both optimizers

    def loss_at(step, generator):
        if step == stop_at:
            raise Stopped
        return model(torch.randn(4, 24, generator=generator)).square().mean()

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


@torch.no_grad()
def test_latents_are_normal_once_they_are_measured_and_pictures_stay_what_they_were(tmp_path):
    torch.manual_seed(0)
    model, device = CreatureAutoencoder().eval(), torch.device("cpu")
    pictures = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    before = model.decode(autoencoder.encode_pictures(model, pictures, device))
    autoencoder.measure_latents(toy_run(tmp_path), model, {"pictures": pictures, "clean": pictures})
    latents = autoencoder.encode_pictures(model, pictures, device)
    channels = latents.shape[1]
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(channels), atol=1e-2)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(channels), atol=1e-3)
    assert torch.allclose(model.decode(latents), before, atol=1e-3)


def test_pictures_of_the_data_set_are_what_their_truth_says():
    truth = picture_truth(3, 60)
    for index in range(60):
        picture = training_picture(3, index)
        things = picture.composition.things
        assert KINDS[truth.kinds[index]] == picture.kind
        assert truth.things[index].sum() == len({(thing.kind, thing.color) for thing, _ in things})
        assert (picture.composition.creature is None) == (picture.kind in ("things", "empty"))
        assert (truth.labels[index] == UNSEEN).all() == (picture.composition.creature is None)
        assert (truth.scenes[index] == UNSEEN) == (picture.composition.ground is not None)
    assert set(truth.kinds.tolist()) == set(range(len(KINDS)))


def test_most_timesteps_are_trained_evenly_and_the_last_ones_of_a_sampler_rarely():
    density = unet.timestep_density(noise_schedule("v_prediction", zero_snr=True))
    assert density[-1] == 1 and density[0] < 0.01 and (density.diff() >= -1e-6).all()


def test_the_error_of_noise_counts_as_that_of_v_within_bounds():
    schedule = noise_schedule()
    weights, snr = text_unet.noise_weights(schedule), schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    middle = int((snr - 1).abs().argmin())
    assert weights[middle] == pytest.approx(float((snr[middle] + 1) / snr[middle]), rel=1e-4)
    assert weights.max() <= text_unet.MOST_WEIGHT and weights[0] < 0.1


def test_a_row_has_neither_words_nor_tokens_now_and_then():
    no_tokens, captions = unet.dropped(["a creature"] * 4000, torch.Generator().manual_seed(0))
    no_words = torch.tensor([caption == "" for caption in captions])
    assert (no_tokens & no_words).float().mean().item() == pytest.approx(unet.DROP_BOTH, abs=0.02)
    assert no_tokens.float().mean().item() == pytest.approx(unet.DROP_BOTH + unet.DROP_TOKENS, abs=0.02)
    assert no_words.float().mean().item() == pytest.approx(unet.DROP_BOTH + unet.DROP_TEXT, abs=0.02)


def test_the_whole_command_trains_and_exports(tmp_path, monkeypatch):
    for module in (reader, encoder, autoencoder, text_unet):
        monkeypatch.setattr(module, "STAGE", replace(module.STAGE, steps=1, batch=2))
    monkeypatch.setattr(autoencoder, "DECODER", replace(autoencoder.DECODER, steps=1, batch=2))
    monkeypatch.setattr(unet, "STAGE", replace(unet.STAGE, steps=1, batch=4))
    monkeypatch.setattr(prior, "RECIPE", replace(prior.RECIPE, steps=1, batch=2))
    for name in ("PART_BATCH", "PICTURE_BATCH", "PATCH_BATCH"):
        monkeypatch.setattr(encoder, name, 2)
    for name in ("PLUS_ROWS", "BASE_ROWS"):
        monkeypatch.setattr(unet, name, 2)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = [
        "--folder", str(tmp_path / "run"), "--weights", str(tmp_path / "weights"), "--creatures", "4",
        "--workers", "1", "--device", "cpu", "--precision", "fp32",
    ]
    assert run(parser.parse_args(flags)) == 0
    names = (
        "autoencoder", "base_adapter", "ip_adapter", "ip_prior", "preview", "reader", "renderer", "sd15",
        "vision",
    )
    written = {path.name for path in (tmp_path / "weights").iterdir()}
    assert written == {f"creature_{name}.safetensors" for name in names}
    adapter = load_ip_adapter(tmp_path / "weights" / "creature_ip_adapter.safetensors")
    ip_prior = load_prior(tmp_path / "weights" / "creature_ip_prior.safetensors")
    tokens = adapter.float().resampler(torch.randn(2, 64, 192))
    assert ip_prior.float()(tokens, torch.ones(2), torch.randn(2, 48, tokens.shape[-1])).shape == tokens.shape


def test_errors_count_more_at_parts_of_which_little_is_to_be_seen():
    shown = [training_picture(3, index).composition for index in range(40)]
    found = part_importance(shown)
    for places, composition in zip(found, shown, strict=True):
        drawn = torch.from_numpy(draw_map(composition, 32, 1)).view(16, 2, 16, 2)
        labels = drawn.permute(0, 2, 1, 3).flatten(2)
        assert (places[((labels == 0) | (labels >= THING_LABEL)).all(dim=-1)] == 0).all()
        for label in labels[(labels > 0) & (labels < THING_LABEL)].unique():
            at_part = places[(labels == label).any(dim=-1)]
            share = (labels == label).float().mean().item()
            assert at_part.min() >= min(importance.MOST_AT_PART, importance.PART_TOTAL / share) - 1e-5
            assert at_part.max() <= importance.MOST_AT_PART


def test_errors_count_more_where_things_are_and_small_creatures():
    shown = [training_picture(3, index).composition for index in range(60)]
    found = importance_of(shown)
    for places, composition in zip(found, shown, strict=True):
        if not composition.things:
            assert (places == 1).all()
            continue
        covered = torch.from_numpy(draw_map(composition, 64, 1)).view(16, 4, 16, 4).amax(dim=(1, 3))
        assert places[covered >= THING_LABEL].min() >= 1 + importance.THING_WEIGHT
        creature = places[(covered > 0) & (covered < THING_LABEL)]
        if composition.creature:  # all of it, but for the tips of the widest wings
            assert (creature >= 1 + importance.SMALL_WEIGHT).float().mean() > 0.95
        assert (places == 1).float().mean() > 0.2
