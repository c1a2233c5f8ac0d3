"""Operators in training: the published loss and drops, resuming, and what is written."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from torch.nn import functional

from pit.pops.files import OperatorConfig, load_operator, read_operator
from pit.pops.modes import MODES
from pit.pops.prior import PriorTransformer
from pit.pops.sample import operator_noise, sample_operator
from pit.pops.training.batches import OperatorBatch, add_noise
from pit.pops.training.draw import dropped
from pit.pops.training.recipes import PRESETS, PUBLISHED, RECOMMENDED, OperatorRecipe, Sizes, Trained
from pit.pops.training.start import begin as begin_training
from pit.pops.training.start import new_operator
from pit.pops.training.task import OperatorTask
from pit.training.checkpoint import checkpoint_folders
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.golden import assert_equal
from tests.pops.tiny import CONFIG, WIDTH, random_operator, write_base, write_operator
from tests.pops.training.datasets import encode, write_dataset

TINY = Sizes(32, 2, 4)
SHORT = {
    "published": replace(PUBLISHED, steps=12, batch=3, learning_rate=1e-3),
    "recommended": replace(RECOMMENDED, steps=12, batch=2, accumulation=2, gradient_checkpointing=True),
    "lora": replace(RECOMMENDED, steps=12, batch=3, lora_rank=2),
}


class Cancelled(BaseException):
    """Like ComfyUI's, no Exception."""


@pytest.fixture(scope="module", params=MODES)
def cache(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return encode(write_dataset(folder / "data", request.param, 5, 2), request.param, folder / "cache")


@pytest.fixture(scope="module")
def union(tmp_path_factory):
    folder = tmp_path_factory.mktemp("union")
    return encode(write_dataset(folder / "data", "union", 5, 2), "union", folder / "cache")


def task_of(cache, recipe, folder="unused", operator=None, **settings):
    return OperatorTask(operator or random_operator(), CONFIG, cache, recipe, RunSettings(folder, **settings))


def begin(folder, cache, recipe, **settings):
    settings = {"save_every": 5, "validate_every": 6} | settings
    task = task_of(cache, recipe, folder, **settings)
    return Trainer(task, recipe, RunSettings(folder, **settings), Accelerator(cpu=True))


def run(folder, cache, recipe, cancel_at=None, **settings):
    def on_step(progress):
        if progress.step == cancel_at:
            raise Cancelled

    return begin(folder, cache, recipe, **settings).run(on_step)


# The published step --------------------------------------------------------------------------------------


def published(golden):
    """The published operator with its configuration, and the tensors of its training step."""
    sizes = golden.facts("pops_tiny_config")["prior"]
    heads, width = sizes["num_attention_heads"], sizes["embedding_dim"]
    hidden = heads * sizes["attention_head_dim"]
    config = OperatorConfig(width, hidden, sizes["num_layers"], heads, 4 * hidden, sizes["num_embeddings"])
    operator = PriorTransformer(**asdict(config))
    operator.load_state_dict(golden.tensors("pops_tiny_state"))
    return operator, config, golden.below("pops_tiny_io", "train.")


def golden_task(golden, union, recipe=PUBLISHED):
    operator, config, given = published(golden)
    return OperatorTask(operator, config, union, recipe, RunSettings("unused")), given


def test_a_step_is_the_published_one(golden, union):
    task, given = golden_task(golden, union)
    clean = task.statistics.normalized(given["target_embed_raw"])
    assert_equal(add_noise(clean, given["noise"], given["t"]), given["noisy"])
    batch = OperatorBatch(given["noisy"], clean, given["t"], given["hidden"], None, None)
    loss = task.losses(task.model, batch).mean()
    assert_equal(loss, given["mse_loss"])
    loss.backward()
    parameters = dict(task.model.named_parameters())
    for name, value in golden.below("pops_tiny_io", "train.grad.").items():
        assert_equal(parameters[name].grad, value)
    assert parameters["clip_mean"].grad is None and parameters["clip_std"].grad is None
    moved = [value for value in parameters.values() if value.requires_grad]
    assert_equal(torch.nn.utils.clip_grad_norm_(moved, PUBLISHED.clip_norm), given["grad_norm"].squeeze())
    torch.optim.AdamW(moved, task.rate, weight_decay=PUBLISHED.weight_decay).step()
    for name, value in golden.below("pops_tiny_io", "train.after_step.").items():
        assert_equal(parameters[name], value)


def test_the_loss_of_words_is_the_published_one(golden, union):
    """10 (1 - cos) of the raw prediction and the sentence, beside the squared error."""
    task, given = golden_task(golden, union)
    io = golden.tensors("pops_tiny_io")
    predicted, clean = given["instruct.pred"], task.statistics.normalized(given["target_embed_raw"][:1])
    batch = OperatorBatch(clean, clean, given["t"], given["hidden"], None, io["instruct.text_embeds"])
    both = task.losses(lambda *_: predicted, batch)
    assert_equal(both, given["instruct.total_loss"])
    squared = task.losses(lambda *_: predicted, replace(batch, sentences=None))
    assert_equal((both - squared) / PUBLISHED.clip_strength, given["instruct.clip_loss"])


@pytest.mark.parametrize("mode", ["texture", "union", "scene"])
def test_what_is_left_out_follows_the_published_draws(golden, mode):
    io = golden.tensors("pops_tiny_io")
    rng = random.Random(int(io["drop.python_random_seed"]))
    found = [dropped(mode, 2, bool(is_random), rng) for is_random in io["drop.is_random"].tolist()]
    assert found == io[f"drop.{mode}.dropped"].bool().tolist()


@pytest.mark.parametrize("mode, share", [("instruct", 0.2), ("clothes", 0.2), ("union", 0.2), ("scene", 0.1)])
def test_conditions_are_left_out_together_as_often_as_published(mode, share):
    found = [dropped(mode, 3, False, random.Random(seed)) for seed in range(2000)]
    assert all(len(set(each)) == 1 and len(each) == 3 for each in found)
    assert abs(sum(each[0] for each in found) / 2000 - share) < 0.03


# Batches -------------------------------------------------------------------------------------------------


def test_a_batch_is_what_the_formula_says(cache):
    """x = sqrt(a) clean + sqrt(1 - a) noise, a = prod(1 - beta), and the mean squared error of the clean."""
    task = task_of(cache, PUBLISHED)
    batch = task.draw(3, range(6), 6)
    angle = (batch.timesteps.double() + 1) / 1000
    kept = torch.cos((angle + 0.008) / 1.008 * torch.pi / 2) ** 2 / torch.cos(
        torch.tensor(0.008 / 1.008 * torch.pi / 2, dtype=torch.float64)) ** 2
    noise = (batch.noisy - kept.sqrt()[:, None] * batch.clean) / (1 - kept).sqrt()[:, None]
    assert 0.8 < noise[batch.timesteps > 100].std() < 1.2
    with torch.no_grad():
        predicted = task.model(batch.noisy, batch.timesteps, batch.condition, batch.mask)
        expected = ((predicted - batch.clean) ** 2).mean(dim=1)
        if cache.mode == "instruct":
            raw = predicted * task.model.clip_std + task.model.clip_mean
            expected = expected + 10 * (1 - functional.cosine_similarity(raw, batch.sentences))
        assert_equal(task.losses(task.model, batch), expected)
    assert (batch.sentences is not None) == (cache.mode == "instruct")


def test_a_masked_sample_counts_like_a_shorter_one(cache):
    task = task_of(cache, PUBLISHED)
    batch = task.draw(0, range(8), 8)
    with torch.no_grad():
        together = task.losses(task.model, batch)
        for row in range(8):
            length = batch.condition.shape[1] if batch.mask is None else int(batch.mask[row].sum())
            one = batch.each(lambda value, row=row: value[row:row + 1])
            one = replace(one, condition=one.condition[:, :length], mask=None)
            assert_equal(task.losses(task.model, one), together[row:row + 1])


def test_two_halves_of_a_step_are_the_whole(cache):
    task = task_of(cache, PUBLISHED)
    whole, halves = task.draw(5, range(4), 4), [task.draw(5, range(i, i + 2), 4) for i in (0, 2)]
    for name in ("noisy", "clean", "timesteps"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(half, name) for half in halves])), name


def test_what_is_left_out_stays_visible_as_zero(union):
    task = task_of(union, PUBLISHED)
    batch = task.draw(0, range(200), 200)
    empty = (batch.condition == 0).all(dim=2)
    assert batch.mask is None and (empty[:, 0] == empty[:, 1]).all()
    # A fifth of nine tenths, and the random tenth.
    assert 0.18 < empty[:, 0].float().mean() < 0.4


def test_words_are_left_out_with_their_picture(tmp_path):
    cache = encode(write_dataset(tmp_path / "data", "instruct", 4), "instruct", tmp_path / "cache")
    batch = task_of(cache, PUBLISHED).draw(0, range(60), 60)
    shown = torch.ones(batch.condition.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
    for row, mask in zip(batch.condition, shown, strict=True):
        zero = (row[mask] == 0).all(dim=1)
        assert zero.all() or not zero.any()


# Runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHORT)
def test_resuming_equals_never_having_stopped(tmp_path, union, name):
    whole = load_operator(run(tmp_path / "whole", union, SHORT[name])).state_dict()
    with pytest.raises(Cancelled):
        run(tmp_path / "parts", union, SHORT[name], cancel_at=7)
    assert checkpoint_folders(tmp_path / "parts" / "checkpoints")[0].name == "step_00000007"
    parts = load_operator(run(tmp_path / "parts", union, SHORT[name])).state_dict()
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
    before = random_operator().state_dict()
    moved = {key for key in whole if not torch.equal(whole[key], before[key])}
    if name == "lora":
        assert moved and all("attn1.to_" in key or ".ff.net." in key for key in moved)
    else:
        # The extra embedding is zero in pOps, so that only weight decay moves its projection.
        still = {"clip_mean", "clip_std"} | (set() if SHORT[name].weight_decay else {"embedding_proj.weight"})
        assert moved == whole.keys() - still


def test_every_mode_learns_in_batches(tmp_path, cache):
    recipe = replace(PUBLISHED, steps=60, batch=8, learning_rate=3e-3)
    trainer = begin(tmp_path, cache, recipe, save_every=1000, validate_every=1000)
    before = trainer.task.validate(trainer.state.model, trainer.device)
    assert before == trainer.task.validate(trainer.state.model, trainer.device)
    path = trainer.run(lambda progress: None)
    after = trainer.task.validate(trainer.state.model, trainer.device)
    assert after.loss < 0.8 * before.loss and len(after.by_time) == 8
    assert read_operator(path).mode == cache.mode


def test_the_result_is_an_operator_that_needs_no_base(tmp_path, union):
    path = run(tmp_path, union, SHORT["recommended"], notes={"title": "tiny"})
    file = read_operator(path)
    assert file.config == CONFIG and file.mode == "union"
    with safe_open(path, "pt") as opened:
        facts = opened.metadata()
    assert facts["dataset"] == union.fingerprint and facts["title"] == "tiny"
    assert json.loads(facts["training"])["recipe"]["ema_decay"] == 0.999
    noise, step_noise = operator_noise(0, 1, WIDTH, 4)
    condition = torch.zeros(1, 2, WIDTH)
    result = sample_operator(
        load_operator(path), condition, noise=noise, step_noise=step_noise, steps=4, guidance_scale=2.0
    )
    assert result.shape == (1, WIDTH) and result.isfinite().all()


@pytest.mark.parametrize("change, message", [
    ({"recipe": replace(SHORT["published"], batch=4)}, "batch was 3 and is now 4"),
    ({"mode": "scene"}, "mode was 'union' and is now 'scene'"),
])
def test_another_run_is_refused_by_name(tmp_path, union, change, message):
    run(tmp_path / "run", union, SHORT["published"])
    other = encode(write_dataset(tmp_path / "data", "scene", 5), "scene", tmp_path / "cache")
    cache = other if "mode" in change else union
    with pytest.raises(ValueError, match=message):
        begin(tmp_path / "run", cache, change.get("recipe", SHORT["published"]))


def test_checkpointed_gradients_are_the_same(union):
    batch = task_of(union, PUBLISHED).draw(0, range(4), 4)
    gradients = []
    for checkpointing in (False, True):
        task = task_of(union, replace(PUBLISHED, gradient_checkpointing=checkpointing))
        task.losses(task.model, batch).mean().backward()
        gradients.append({
            name: value.grad for name, value in task.model.named_parameters() if value.grad is not None
        })
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[0])


# Starts --------------------------------------------------------------------------------------------------


def start(cache, given, folder, recipe=SHORT["published"]):
    return begin_training(cache, given, recipe, RunSettings(folder), cpu=True)


def test_a_new_operator_has_the_statistics_of_what_it_learns(tmp_path, union):
    trainer = start(union, TINY, tmp_path)
    targets = torch.stack([union.draw(i, random.Random(i)).target for i in range(5)])
    operator = trainer.task.model
    assert_equal(operator.clip_mean[0], targets.mean(dim=0))
    assert_equal(operator.clip_std[0], targets.std(dim=0, correction=0).clamp(min=1e-3))
    assert trainer.task.rate == 1e-3 and not trainer.settings.fine_tuning
    again, config = new_operator(union, TINY, 0)
    assert config.num_layers == 2 and torch.equal(again.proj_in.weight, operator.proj_in.weight)
    other, _ = new_operator(union, TINY, 1)
    assert not torch.equal(other.proj_in.weight, again.proj_in.weight)
    with pytest.raises(ValueError, match="splits into 5 heads"):
        start(union, Sizes(32, 2, 5), tmp_path)


def test_a_published_operator_is_trained_further_over_its_base(tmp_path, union):
    operator, base = write_operator(tmp_path / "operator.pth"), write_base(tmp_path / "base")
    trainer = start(union, Trained(operator, base), tmp_path / "run", replace(PUBLISHED, learning_rate=None))
    weights, expected = trainer.task.model.state_dict(), random_operator().state_dict()
    assert_equal(weights["proj_in.weight"], expected["proj_in.weight"])
    assert_equal(weights["clip_mean"], random_operator(1).clip_mean)
    assert trainer.task.rate == pytest.approx(0.1 * 0.4 / 32) and trainer.settings.fine_tuning
    prior = start(union, Trained(base), tmp_path / "other")
    assert_equal(prior.task.model.proj_in.weight, random_operator(1).proj_in.weight)
    assert prior.settings.started_from != trainer.settings.started_from
    other = start(union, Trained(operator, write_base(tmp_path / "base2", seed=7)), tmp_path / "third")
    assert other.settings.started_from != trainer.settings.started_from


def test_what_does_not_fit_is_refused(tmp_path, union):
    with pytest.raises(ValueError, match="statistics clip_mean and clip_std beside the weights"):
        start(union, Trained(write_operator(tmp_path / "operator.pth")), tmp_path / "run")
    with pytest.raises(ValueError, match=f"on embeddings of width {WIDTH}, .* got one for width 16"):
        start(union, Trained(write_base(tmp_path / "wide", width=16)), tmp_path / "run")
    with pytest.raises(ValueError, match="Expected a trained operator for low-rank changes"):
        start(union, TINY, tmp_path / "run", SHORT["lora"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"clip_strength": -1.0}, {"lora_rank": -1}, {"batch": 0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(OperatorRecipe(), **change).check()


def test_every_preset_is_sound():
    for recipe in PRESETS.values():
        recipe.check()
    assert PRESETS[OperatorTask.thrifty_preset].gradient_checkpointing
