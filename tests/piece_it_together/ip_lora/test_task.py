"""Training an IP-LoRA by the trainer of the priors: its loss, what it moves, and what it writes."""
from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from pit.files.lora import modules, read_lora
from pit.piece_it_together.ip_lora.cache import encode_lora_dataset
from pit.piece_it_together.ip_lora.dataset import read_lora_dataset
from pit.piece_it_together.ip_lora.recipes import PRESETS, PUBLISHED, LoraRecipe
from pit.piece_it_together.ip_lora.task import LoraTask, add_lora
from pit.training.denoising import min_snr_weights
from pit.training.denoising import noise_schedule as schedule
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.training.tiny_renderer import tiny_encoders, tiny_renderer, write_pictures

SHORT = replace(PUBLISHED, steps=8, accumulation=2, rank=2, learning_rate=1e-3)
RECIPES = {
    "published": SHORT,
    "averaged": replace(SHORT, ema_decay=0.9, schedule="cosine", warmup=3, min_snr_gamma=5.0),
    "everything": replace(
        SHORT, on_adapter=True, text_dropout=0.5, image_dropout=0.5, noise_offset=0.1, precision="bf16",
        gradient_checkpointing=True, optimizer="adafactor", alpha=4.0,
    ),
    "schedule free": replace(SHORT, optimizer="schedule_free"),
    "8 bit": replace(SHORT, optimizer="adamw_8bit", rank=128),  # smaller factors keep 32 bits
}


class Cancelled(BaseException):
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    dataset = read_lora_dataset(write_pictures(folder / "pictures"), "captions as they are")
    return encode_lora_dataset(dataset.samples, folder / "cache", tiny_encoders(), 16)[0]


def begin(folder, cache, recipe, prediction="epsilon"):
    settings = RunSettings(folder, save_every=3, validate_every=recipe.steps)
    task = LoraTask(tiny_renderer(), schedule(prediction), cache, recipe, settings)
    return Trainer(task, recipe, settings, Accelerator(cpu=True))


def run(folder, cache, recipe, cancel_at=None):
    def on_step(progress):
        if progress.step == cancel_at:
            raise Cancelled

    return begin(folder, cache, recipe).run(on_step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """By the name of a recipe, the trainer of a run without a stop, and the file that it wrote."""
    @functools.cache
    def run_whole(name):
        trainer = begin(tmp_path_factory.mktemp("whole"), cache, RECIPES[name])
        return trainer, trainer.run(lambda progress: None)

    return run_whole


def state_of(path):
    lora = read_lora(path)
    return lora.unet | lora.adapter


@pytest.mark.parametrize("name", RECIPES)
def test_resuming_equals_never_having_stopped(tmp_path, cache, whole, name):
    with pytest.raises(Cancelled):
        run(tmp_path, cache, RECIPES[name], cancel_at=5)
    parts, expected = state_of(run(tmp_path, cache, RECIPES[name])), state_of(whole(name)[1])
    assert parts.keys() == expected.keys()
    assert all(torch.equal(parts[key], expected[key]) for key in expected)


def test_the_8_bit_optimizer_keeps_bytes(whole):
    states = whole("8 bit")[0].state.optimizer.state.values()
    kept = [value for values in states for value in values.values()]
    assert any(isinstance(value, torch.Tensor) and value.dtype is torch.uint8 for value in kept)


def test_the_loss_is_the_published_one(cache):
    """Of noise, at uniform times, by the sum that diffusers' schedule defines."""
    task = LoraTask(tiny_renderer(), schedule(), cache, SHORT, RunSettings("unused"))
    batch = task.draw(3, range(4), 4)
    assert batch.context.shape == (4, 5, 40) and batch.tokens.shape == (4, 16, 24)
    signal = schedule().alphas_cumprod[batch.timesteps][:, None, None, None]
    clean = (batch.noisy - (1 - signal).sqrt() * batch.wanted) / signal.sqrt()
    assert all(any((each - cache.read(i).latents[:4]).abs().max() < 0.2 for i in range(6)) for each in clean)
    with torch.no_grad():
        predicted = task.model(
            batch.noisy, batch.timesteps, batch.context, batch.pooled, batch.time_ids, batch.tokens
        )
        losses = task.losses(task.model, batch)
    torch.testing.assert_close(losses, (predicted - batch.wanted).square().mean(dim=(1, 2, 3)))


def test_a_velocity_is_learnt_where_the_renderer_predicts_one(cache):
    """v = sqrt(a) noise - sqrt(1 - a) clean, so that clean = sqrt(a) noisy - sqrt(1 - a) v."""
    noise, velocity = (
        LoraTask(tiny_renderer(), schedule(kind), cache, SHORT, RunSettings("unused")).draw(0, range(2), 2)
        for kind in ("epsilon", "v_prediction")
    )
    signal = schedule().alphas_cumprod[noise.timesteps][:, None, None, None]
    found = signal.sqrt() * velocity.wanted + (1 - signal).sqrt() * velocity.noisy
    torch.testing.assert_close(found, noise.wanted, atol=1e-4, rtol=1e-4)


def test_two_halves_of_a_step_are_the_whole(cache):
    task = LoraTask(tiny_renderer(), schedule(), cache, RECIPES["everything"], RunSettings("unused"))
    whole, halves = task.draw(5, range(4), 4), [task.draw(5, range(i, i + 2), 4) for i in (0, 2)]
    for name, value in vars(whole).items():
        assert torch.equal(value, torch.cat([getattr(half, name) for half in halves])), name


def test_what_is_left_out_is_replaced_by_nothing(cache):
    empty = cache.empty
    recipe = replace(SHORT, text_dropout=1.0, image_dropout=1.0)
    batch = LoraTask(tiny_renderer(), schedule(), cache, recipe, RunSettings("unused")).draw(0, range(3), 3)
    for name in ("context", "pooled", "tokens"):
        assert torch.equal(getattr(batch, name), getattr(empty, name).expand_as(getattr(batch, name)))


def test_min_snr_weights():
    steps = torch.tensor([10, 500, 990])
    signal = schedule().alphas_cumprod[steps]
    snr = signal / (1 - signal)
    noise = min_snr_weights(schedule(), steps, 5.0)
    torch.testing.assert_close(noise, torch.stack([5 / snr[0], torch.tensor(1.0), torch.tensor(1.0)]))
    velocity = min_snr_weights(schedule("v_prediction"), steps, 5.0)
    torch.testing.assert_close(velocity, snr.clamp(max=5) / (snr + 1))
    assert min_snr_weights(schedule(), steps, 0.0).tolist() == [1.0, 1.0, 1.0]


def test_the_additions_start_as_nothing_and_as_published():
    renderer = tiny_renderer()
    inputs = (
        torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, 40), torch.randn(2, 16),
        torch.randn(2, 6), torch.randn(2, 16, 24),
    )
    with torch.no_grad():
        before = renderer(*inputs)
        model = add_lora(renderer, LoraRecipe(rank=8, on_adapter=True), seed=1)
        assert torch.equal(model(*inputs), before)
    downs = torch.cat([
        value.flatten() for name, value in model.named_parameters() if "lora_A" in name
    ])
    assert abs(downs.std().item() - 1 / 8) < 0.01
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * (4 * 2 * 8 + 2 * 8)


def test_the_file_opens_and_holds_every_layer(whole):
    lora = read_lora(whole("everything")[1])
    assert len(modules(lora.unet)) == 4 * 2 * 8 and len(modules(lora.adapter)) == 2 * 8
    assert not lora.elsewhere
    alphas = {value.item() for key, value in (lora.unet | lora.adapter).items() if key.endswith(".alpha")}
    assert alphas == {4.0}
    ups = [value for key, value in lora.adapter.items() if key.endswith("lora_up.weight")]
    assert all(up.abs().max() > 0 for up in ups)


def test_training_lowers_the_loss(tmp_path, cache):
    recipe = replace(SHORT, steps=20, batch=4, accumulation=1, rank=8, learning_rate=3e-2)
    trainer = begin(tmp_path, cache, recipe)
    before = trainer.task.validate(trainer.state.model, trainer.device)
    assert before == trainer.task.validate(trainer.state.model, trainer.device)
    trainer.run(lambda progress: None)
    after = trainer.task.validate(trainer.state.model, trainer.device)
    assert after.loss < 0.95 * before.loss


def test_a_run_of_other_settings_is_refused(cache, whole):
    folder = whole("published")[0].settings.folder
    with pytest.raises(ValueError, match="rank was 2 and is now 4"):
        begin(folder, cache, replace(SHORT, rank=4))


@pytest.mark.parametrize("change", [
    {"rank": 0}, {"alpha": -1.0}, {"text_dropout": 1.5}, {"noise_offset": math.nan}, {"optimizer": "sgd"},
])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(PUBLISHED, **change).check()


def test_every_preset_is_sound():
    for recipe in PRESETS.values():
        recipe.check()
