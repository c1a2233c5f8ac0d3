"""The trainer: resuming, cancelling, faults, and what it writes."""
from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open

from pit.files.weights import WeightFileError
from pit.flow.path import velocity_loss
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.prior_files import load_prior, save_prior
from pit.piece_it_together.training import start, task
from pit.piece_it_together.training.batches import draw_batch
from pit.piece_it_together.training.recipes import PRESETS, PUBLISHED, RECOMMENDED, Sizes
from pit.piece_it_together.training.start import new_prior, trained_prior
from pit.piece_it_together.training.task import PriorTask
from pit.piece_it_together.training.validation import batch_loss, validate, validation_set
from pit.training import trainer as trainer_module
from pit.training.checkpoint import checkpoint_folders
from pit.training.metrics import read_points
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer, TrainingError
from tests.training.tiny import WIDTH, write_cache

TINY = Sizes(32, 2, 2)
SHORT = {
    "recommended": replace(RECOMMENDED, steps=24, batch=4),
    "published": replace(PUBLISHED, steps=24, batch=4, learning_rate=1e-3),
    "accumulated": replace(RECOMMENDED, steps=12, batch=2, accumulation=2, gradient_checkpointing=True),
    "schedule free": replace(PUBLISHED, steps=12, batch=4, learning_rate=1e-3, optimizer="schedule_free"),
    "lora": replace(RECOMMENDED, steps=12, batch=4, lora_rank=2, min_snr_gamma=5.0),
}


class Cancelled(BaseException):
    """Like ComfyUI's, no Exception."""


def start_of(cache, recipe):
    """An untrained prior; for LoRA one that puts something out, or no gradient reaches its layers."""
    prior, _ = new_prior(cache, TINY, seed=0)
    if recipe.lora_rank:
        torch.nn.init.normal_(prior.final_layer.linear.weight, generator=torch.Generator().manual_seed(0))
    return prior


def trainer_of(prior, config, cache, recipe, settings):
    task = PriorTask(prior, config, cache, recipe, settings)
    return Trainer(task, recipe, settings, Accelerator(cpu=True))


def begin(folder, cache, config, recipe, **settings):
    prior = start_of(cache, recipe)
    settings = {"save_every": 8, "validate_every": 8} | settings
    return trainer_of(prior, config, cache, recipe, RunSettings(folder, **settings))


def run(folder, cache, config, recipe, cancel_at=None, **settings):
    def on_step(progress):
        if progress.step == cancel_at:
            raise Cancelled

    return begin(folder, cache, config, recipe, **settings).run(on_step)


def weights(path):
    return load_prior(path).state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", SHORT)
def test_resuming_equals_never_having_stopped(tmp_path, cache, config, name):
    whole = run(tmp_path / "whole", cache, config, SHORT[name])
    for stop in sorted(random.Random(name).sample(range(1, SHORT[name].steps), 4)):
        with pytest.raises(Cancelled):
            run(tmp_path / "parts", cache, config, SHORT[name], cancel_at=stop)
    parts = run(tmp_path / "parts", cache, config, SHORT[name])
    assert same(weights(whole), weights(parts))
    assert (tmp_path / "whole/metrics.csv").read_text() == (tmp_path / "parts/metrics.csv").read_text()


def test_cancelling_saves_the_very_step(tmp_path, cache, config):
    with pytest.raises(Cancelled):
        run(tmp_path, cache, config, SHORT["recommended"], cancel_at=5)
    assert [path.name for path in checkpoint_folders(tmp_path / "checkpoints")] == ["step_00000005"]


def test_the_loss_falls(tmp_path, config):
    cache = write_cache(tmp_path / "one", concepts=1)
    run(tmp_path / "run", cache, config, replace(RECOMMENDED, steps=100, batch=8, learning_rate=1e-2))
    losses = [point.loss for point in read_points(tmp_path / "run") if point.loss is not None]
    assert losses[-1] < 0.75 * losses[0]


def test_a_step_is_the_published_one(tmp_path, cache, config):
    """Clip 1.0 and AdamW without weight decay, on the published loss."""
    recipe = replace(PUBLISHED, steps=1, batch=4, learning_rate=1e-3)
    training = begin(tmp_path, cache, config, recipe)
    model = copy.deepcopy(training.state.model)
    batch = draw_batch(cache, training.task.split.training, recipe, 0, 0, range(4), 4)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    velocity_loss(model, batch.clean, batch.parts, batch.t, batch.noise).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    trained = weights(training.run(lambda progress: None))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(trained[key], value, rtol=1e-5, atol=1e-6)


def test_a_masked_sample_counts_like_a_shorter_one(cache, config):
    torch.manual_seed(0)
    prior = IPPrior(WIDTH, 32, 2, 2)
    batch = draw_batch(cache, torch.arange(60), RECOMMENDED, 0, 0, range(16), 16)
    losses = batch_loss(prior, batch)
    for row, length in enumerate(batch.mask.sum(dim=1).tolist()):
        one = [value[row:row + 1] for value in (batch.clean, batch.parts[:, :length], batch.t, batch.noise)]
        torch.testing.assert_close(losses[row:row + 1], velocity_loss(prior, *one), rtol=1e-5, atol=1e-6)


def test_checkpointed_gradients_are_the_same(cache, prior):
    batch = draw_batch(cache, torch.arange(60), RECOMMENDED, 0, 0, range(4), 4)
    gradients = []
    for prior.gradient_checkpointing in (False, True):
        prior.zero_grad()
        batch_loss(prior, batch).mean().backward()
        gradients.append({name: value.grad.clone() for name, value in prior.named_parameters()})
    assert same(*gradients)


def test_the_result_tells_what_it_is_made_of(tmp_path, cache, config):
    path = run(tmp_path, cache, config, SHORT["recommended"], notes={"title": "tiny"})
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["dataset"] == cache.fingerprint and facts["num_heads"] == "2" and facts["title"] == "tiny"
    assert facts["adapter"] == "89ab"
    training = json.loads(facts["training"])
    assert training["steps"] == 24 and training["recipe"]["ema_decay"] == 0.999
    assert load_prior(path).head_dim == 16


def test_other_settings_are_refused_by_name(tmp_path, cache, config):
    run(tmp_path, cache, config, SHORT["recommended"])
    other = replace(SHORT["recommended"], batch=5, precision="fp32")
    with pytest.raises(ValueError, match="batch was 4 and is now 5, precision was 'bf16' and is now 'fp32'"):
        run(tmp_path, cache, config, other)


def test_another_head_count_and_another_start_are_refused_by_name(tmp_path, cache, config):
    """Neither shows in the shapes of a checkpoint, and the frozen weights of a LoRA are not in it at all."""
    run(tmp_path, cache, config, SHORT["lora"])
    with pytest.raises(ValueError, match="num_heads was 2 and is now 4"):
        run(tmp_path, cache, replace(config, num_heads=4), SHORT["lora"])
    with pytest.raises(ValueError, match="started_from was '' and is now 'a file'"):
        run(tmp_path, cache, config, SHORT["lora"], started_from="a file")


@pytest.mark.parametrize("name", ["cfg.yaml", "prior.safetensors"])
def test_a_run_does_not_mix_with_a_prior_that_is_there(tmp_path, cache, config, name):
    (tmp_path / name).write_text("num_attention_heads: 32")
    with pytest.raises(ValueError, match=f"expected no {name} without its run, got one"):
        run(tmp_path, cache, config, SHORT["published"])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_more_steps_go_on_from_the_end(tmp_path, cache, config):
    run(tmp_path, cache, config, SHORT["published"])
    steps = []
    training = begin(tmp_path, cache, config, replace(SHORT["published"], steps=30))
    training.run(lambda progress: steps.append(progress.step))
    assert steps == list(range(25, 31))


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, cache, config):
    run(tmp_path, cache, config, replace(SHORT["published"], steps=10))
    training = begin(tmp_path, cache, config, SHORT["published"])
    with torch.no_grad():
        training.state.model.x_embedder.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not finite at step 10\..*checkpoint is that of step 10 "):
        training.run(lambda progress: None)
    assert checkpoint_folders(tmp_path / "checkpoints")[0].name == "step_00000010"


def test_a_cancel_after_a_bad_loss_saves_nothing_bad(tmp_path, cache, config):
    training = begin(tmp_path, cache, config, SHORT["published"])
    with torch.no_grad():
        training.state.model.x_embedder.bias.fill_(float("nan"))

    def cancel(progress):
        raise Cancelled

    with pytest.raises(TrainingError, match="No checkpoint was written yet"):
        training.run(cancel)
    assert not checkpoint_folders(tmp_path / "checkpoints")


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path, cache, config):
    """The loss of that step still looks well."""
    training = begin(tmp_path, cache, config, SHORT["published"])
    training.state.model.x_embedder.bias.register_hook(lambda gradient: gradient * float("inf"))

    def cancel(progress):
        raise Cancelled

    with pytest.raises(TrainingError, match="its gradient is not finite at step 0"):
        training.run(cancel)
    assert not checkpoint_folders(tmp_path / "checkpoints")


def test_lora_starts_the_same_for_the_same_seed(tmp_path, cache, config):
    torch.manual_seed(1)
    one = run(tmp_path / "one", cache, config, SHORT["lora"])
    torch.manual_seed(2)
    assert same(weights(one), weights(run(tmp_path / "two", cache, config, SHORT["lora"])))


def test_too_little_memory_says_what_to_lower(tmp_path, cache, config, monkeypatch):
    calls = []

    def short_of_memory(prior, batch):
        calls.append(batch)
        if len(calls) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return batch_loss(prior, batch)

    monkeypatch.setattr(task, "batch_loss", short_of_memory)
    with pytest.raises(TrainingError, match=r"step 9.*batch \(now 4\).*gradient_checkpointing.*step 8 in"):
        run(tmp_path, cache, config, SHORT["published"])
    assert checkpoint_folders(tmp_path / "checkpoints")[0].name == "step_00000008"


def test_another_error_is_not_taken_for_one_of_memory(tmp_path, cache, config, monkeypatch):
    def broken(prior, batch):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(task, "batch_loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path, cache, config, SHORT["published"])


def test_a_full_disk_stops_with_the_older_checkpoint(tmp_path, cache, config, monkeypatch):
    def full(*_args):
        raise WeightFileError("The checkpoint could not be written: No space left on device")

    with pytest.raises(Cancelled):
        run(tmp_path, cache, config, SHORT["published"], cancel_at=8)
    monkeypatch.setattr(trainer_module, "write_checkpoint", full)
    with pytest.raises(WeightFileError, match="No space left"):
        run(tmp_path, cache, config, SHORT["published"])
    monkeypatch.undo()
    assert begin(tmp_path, cache, config, SHORT["published"]).state.step == 8


def test_a_damaged_checkpoint_is_passed_over(tmp_path, cache, config):
    run(tmp_path, cache, config, SHORT["published"])
    newest = checkpoint_folders(tmp_path / "checkpoints")[0]
    (newest / "model.tensors").write_bytes(b"")
    training = begin(tmp_path, cache, config, SHORT["published"])
    assert training.state.step == 16 and "bytes in model.tensors, got 0" in training.passed_over[0]


def test_a_checkpoint_of_another_model_is_refused(tmp_path, cache, config):
    run(tmp_path, cache, config, SHORT["published"])
    for name in ("run.json", "prior.safetensors"):
        (tmp_path / name).unlink()
    prior, other = new_prior(cache, Sizes(64, 2, 2), seed=0)
    with pytest.raises(WeightFileError, match="got one of other sizes"):
        trainer_of(prior, other, cache, SHORT["published"], RunSettings(tmp_path))


def test_lora_moves_nothing_but_its_targets(tmp_path, cache, config):
    path = run(tmp_path, cache, config, SHORT["lora"])
    before = start_of(cache, SHORT["lora"]).state_dict()
    moved = {key for key, value in weights(path).items() if not torch.equal(value, before[key])}
    assert {key.split(".")[-2] for key in moved} == {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}


def test_the_average_of_lora_holds_no_second_copy_of_what_is_frozen(tmp_path, cache, config):
    state = begin(tmp_path, cache, config, SHORT["lora"]).state
    trained = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
    assert [each.shape for each in state.averaged.module] == [each.shape for each in trained]


def test_averaged_weights_are_put_in_for_use_and_taken_out_again(tmp_path, cache, config):
    state = begin(tmp_path, cache, config, replace(SHORT["recommended"], ema_decay=0.5)).state
    with torch.no_grad():
        for value in (1.0, 2.0):
            state.model.x_embedder.bias.fill_(value)
            state.finish_step(torch.zeros(()))
    with state.weights_to_use() as model:
        assert model.x_embedder.bias.unique().tolist() == [pytest.approx(1 + 9 / 11)]
    assert state.model.x_embedder.bias.unique().tolist() == [2.0]


def test_lora_needs_a_trained_prior(tmp_path, cache):
    with pytest.raises(ValueError, match="Choose a prior to start from"):
        start.begin(cache.folder, TINY, SHORT["lora"], RunSettings(tmp_path), cpu=True)


def test_fine_tuning_starts_from_a_file_with_smaller_steps(tmp_path, cache, config, prior):
    save_prior(tmp_path / "start.safetensors", prior.state_dict(), config)
    loaded, found = trained_prior(tmp_path / "start.safetensors", cache)
    assert found.num_heads == 2 and same(loaded.state_dict(), prior.state_dict())
    settings = RunSettings(tmp_path / "run", started_from="a file")
    training = trainer_of(loaded, found, cache, SHORT["recommended"], settings)
    fresh = begin(tmp_path / "fresh", cache, config, SHORT["recommended"])
    assert training.state.rate == pytest.approx(fresh.state.rate / 10)


def test_a_prior_for_other_tokens_is_refused(tmp_path, cache, config):
    other = replace(config, embedding_dim=48)
    save_prior(tmp_path / "other.safetensors", IPPrior(48, 32, 2, 2).state_dict(), other)
    with pytest.raises(ValueError, match="tokens of width 32, .* got one for width 48"):
        trained_prior(tmp_path / "other.safetensors", cache)


def test_a_prior_with_a_reference_needs_a_cache_with_references(tmp_path, cache, config, prior):
    save_prior(tmp_path / "ref.safetensors", prior.state_dict(), replace(config, use_ref=True))
    with pytest.raises(ValueError, match="with no reference slot, .* got one with a reference slot"):
        trained_prior(tmp_path / "ref.safetensors", cache)


def test_validation_is_the_same_whenever_it_is_asked_for(cache, prior):
    chosen = validation_set(cache, torch.arange(8), max_parts=7)
    first, again = (validate(prior, chosen, torch.device("cpu")) for _ in range(2))
    assert first == again and len(first.by_time) == 8
    assert first.loss == pytest.approx(sum(first.by_time) / 8)


@pytest.mark.parametrize("change", [
    {"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"empty_share": 1.5},
    {"precision": "fp8"}, {"lengths": "token"}, {"clip_norm": -1.0}, {"lora_rank": -1}, {"ema_decay": 2.0},
    {"time_mean": float("inf")},
    {"time_spread": 0.0},
])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(RECOMMENDED, **change).check()


def test_averages_of_averages_are_refused():
    with pytest.raises(ValueError, match="schedule_free averages by itself"):
        replace(RECOMMENDED, optimizer="schedule_free").check()


def test_every_preset_is_sound():
    for recipe in PRESETS.values():
        recipe.check()
