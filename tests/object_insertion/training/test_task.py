"""Training an Embedding Optimizer by the one trainer: its loss, what it moves, and what it writes."""
from __future__ import annotations

import copy
import functools
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from PIL import Image

from pit.files.weights import read_state
from pit.object_insertion.condition import object_context, queries
from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer, LegacyEmbeddingOptimizer
from pit.object_insertion.files import load_embedding_optimizer
from pit.object_insertion.training.inserter import Inserter, unet_of_sizes
from pit.object_insertion.training.recipes import PRESETS, PUBLISHED, RECOMMENDED, InsertionRecipe
from pit.object_insertion.training.samples import sample_latents, sample_sheet
from pit.object_insertion.training.start import new_optimizer
from pit.object_insertion.training.task import InsertionBatch, InsertionTask, split
from pit.training.denoising import noise_schedule
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.golden import assert_equal, number_in
from tests.object_insertion.training.triplets import TOKENS, encoded

TINY = "object_insertion_tiny_io"
SHORT = replace(PUBLISHED, steps=8, batch=2, accumulation=2, learning_rate=1e-3)
RECIPES = {
    "published": SHORT,
    "dropping": replace(SHORT, dropping=0.2, null="zeros"),
    "blank": replace(SHORT, dropping=0.2),
    "projections": replace(SHORT, trains="projections", dropping=0.05, ema_decay=0.9),
    "lora": replace(
        SHORT, trains="lora", rank=2, schedule="cosine", warmup=3, precision="bf16",
        gradient_checkpointing=True, optimizer="adafactor",
    ),
}


class Cancelled(BaseException):
    pass


def tiny_unet():
    torch.manual_seed(1)
    return UNet2DConditionModel(
        in_channels=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        attention_head_dim=2, cross_attention_dim=24,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def tiny_inserter(seed=0):
    torch.manual_seed(seed)
    return Inserter(EmbeddingOptimizer(32, 24, 4, 4), tiny_unet())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return encoded(tmp_path_factory.mktemp("triplets"))


def new_task(cache, recipe, seed=0):
    return InsertionTask(tiny_inserter(), cache, recipe, RunSettings("unused", seed))


def begin(folder, cache, recipe):
    settings = RunSettings(folder, save_every=3, validate_every=recipe.steps)
    task = InsertionTask(tiny_inserter(), cache, recipe, settings)
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


def states_of(path):
    """What was learned: of the optimizer, and of the UNet."""
    beside = path.with_name("attention.safetensors")
    return read_state(path)[0] | (read_state(beside)[0] if beside.exists() else {})


@pytest.mark.golden_keys(TINY, r"train\.\w+(\.\d+)?\.loss")
def test_the_loss_and_its_gradients_are_the_published_ones(golden, optimizer, unet, vae, key, cache):
    run = key.removesuffix("loss")
    shared, io = golden.below(TINY, "train."), golden.below(TINY, run)
    dropping = number_in(run.removesuffix("."), "drop") if "random_p" in io else 0.0
    model = Inserter(optimizer, copy.deepcopy(unet))
    task = InsertionTask(model, cache, replace(SHORT, dropping=dropping), RunSettings("unused"))
    tokens = shared["object_last_hidden_state"]
    dropped = {
        "blank": shared["blank_last_hidden_state"].expand(len(tokens), -1, -1),
        "blank_query": io["query_blank"], "chances": io["random_p"],
    } if dropping else {}
    batch = InsertionBatch(
        io["noisy_latents"], io["noise"], io["timesteps"], vae.encode(shared["original"]).latent_dist.mode(),
        tokens, io["query_object"], **dropped,
    )
    loss = task.losses(task.model, batch).mean()
    assert_equal(loss, io["loss"])
    loss.backward()
    for name in [name for name in io if name.startswith("grad.")]:
        assert_equal(optimizer.get_parameter(name.removeprefix("grad.")).grad, io[name])


@pytest.mark.parametrize("name", RECIPES)
def test_resuming_equals_never_having_stopped(tmp_path, cache, whole, name):
    with pytest.raises(Cancelled):
        run(tmp_path, cache, RECIPES[name], cancel_at=5)
    parts, expected = states_of(run(tmp_path, cache, RECIPES[name])), states_of(whole(name)[1])
    assert parts.keys() == expected.keys()
    assert all(torch.equal(parts[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name, more", [("published", 0), ("projections", 8), ("lora", 24)])
def test_what_is_trained_is_what_the_recipe_says(whole, name, more):
    trainer, path = whole(name)
    fresh = tiny_inserter()
    before, after = fresh.optimizer.state_dict(), load_embedding_optimizer(path).state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in after)
    beside = path.with_name("attention.safetensors")
    learned = read_state(beside)[0] if beside.exists() else {}
    assert len(learned) == more
    parameters = trainer.state.model.unet.named_parameters()
    frozen = {key: value for key, value in parameters if not value.requires_grad}
    given = fresh.unet.state_dict()
    for key, value in frozen.items():
        plain = key.replace(".linear.", ".").replace(".base_layer.", ".")
        assert torch.equal(value, given[plain].to(value.dtype)), key
    assert len(frozen) == len(given)


def test_what_was_learned_of_the_unet_is_read_as_it_was_trained(whole):
    """diffusers' UNet with the written changes predicts what the trained one predicts."""
    noisy, scene, context = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.randn(2, 77, 24)
    times = torch.tensor([3, 700])
    for name in ("projections", "lora"):
        trainer, path = whole(name)
        learned, _ = read_state(path.with_name("attention.safetensors"))
        unet = tiny_unet()
        for layer, module in unet.named_modules():
            key = f"lora_unet_{layer.replace('.', '_')}"
            if f"{key}.diff" in learned:
                module.weight.data += learned[f"{key}.diff"]
            elif f"{key}.alpha" in learned:
                up, down = learned[f"{key}.lora_up.weight"], learned[f"{key}.lora_down.weight"]
                module.weight.data += up @ down * (learned[f"{key}.alpha"] / len(down))
        with torch.no_grad(), trainer.state.weights_to_use() as model:
            expected = model.float().predicted(noisy, times, scene, context)
            found = unet(torch.cat([noisy, scene], 1), times, context).sample
            plain = tiny_unet()(torch.cat([noisy, scene], 1), times, context).sample
        tolerance = {"projections": 1e-5, "lora": 0.05}[name]  # the frozen weights of the second are bfloat16
        assert (found - expected).abs().max() < tolerance * expected.abs().max()
        assert not torch.equal(found, plain)


def test_another_number_of_heads_comes_back_from_the_file(whole):
    assert load_embedding_optimizer(whole("published")[1]).attention_pooling.num_heads == 4


@pytest.mark.parametrize("older", [
    EmbeddingOptimizer(32, 24, 2), LegacyEmbeddingOptimizer(32, 24, TOKENS),
], ids=["two layers", "legacy"])
def test_older_variants_are_trained_on_and_stay_what_they_are(tmp_path, cache, older):
    recipe = replace(RECIPES["blank"], steps=2)
    given = copy.deepcopy(older)
    task = InsertionTask(Inserter(given, tiny_unet()), cache, recipe, RunSettings(tmp_path))
    path = Trainer(task, recipe, RunSettings(tmp_path), Accelerator(cpu=True)).run(lambda progress: None)
    loaded = load_embedding_optimizer(path)
    assert type(loaded) is type(older)
    before, after = older.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in after)


def test_a_step_sees_targets_with_noise_and_scenes_without(cache):
    task = new_task(cache, RECIPES["blank"])
    batch = task.draw(3, range(4), 4)
    kept = task.schedule.alphas_cumprod[batch.timesteps][:, None, None, None]
    clean = (batch.noisy - (1 - kept).sqrt() * batch.wanted) / kept.sqrt() / 0.18215
    samples = [cache.read(index, variant) for index in range(6) for variant in range(2)]
    for row, scene, tokens in zip(clean, batch.scene, batch.tokens, strict=True):
        assert any(
            (row - sample.target[:4]).abs().max() < 0.2 and torch.equal(scene, sample.scene)
            and torch.equal(tokens, sample.tokens) for sample in samples
        )
    assert batch.query.shape == batch.blank_query.shape == (4, 77, 24)
    assert batch.blank.shape == (4, TOKENS, 32) and len(set(batch.query.sum((1, 2)).tolist())) == 4


def test_two_halves_of_a_step_are_the_whole(cache):
    task = new_task(cache, RECIPES["blank"])
    whole, halves = task.draw(5, range(4), 4), [task.draw(5, range(i, i + 2), 4) for i in (0, 2)]
    for name, value in vars(whole).items():
        assert torch.equal(value, torch.cat([getattr(half, name) for half in halves])), name


def test_dropping_is_on_by_default_and_never_in_a_validation(cache):
    assert next(iter(PRESETS.values())).dropping > 0 and InsertionRecipe().dropping > 0
    everything = new_task(cache, replace(SHORT, dropping=1 / 3, null="zeros"))
    nothing = new_task(cache, replace(SHORT, dropping=0.0))
    batch = everything.draw(0, range(6), 6)
    assert batch.chances is not None and nothing.draw(0, range(6), 6).chances is None
    with torch.no_grad():
        kept = nothing.losses(nothing.model, replace(batch, chances=None))
        assert not torch.equal(everything.losses(everything.model, batch), kept)
    device = torch.device("cpu")
    assert everything.validate(everything.model, device) == nothing.validate(nothing.model, device)


def test_a_fixed_share_is_held_out_whatever_is_added():
    names = [f"picture {number}" for number in range(400)]
    training, held_out = split(names[:200])
    assert len(held_out) == 10 and not set(training) & set(held_out) and len(training) == 190
    assert len(set(held_out) & set(split(names)[1])) > 5
    assert split(names[:19]) == (list(range(19)), [])
    assert len(split([str(number) for number in range(10_000)])[1]) == 64


def test_training_lowers_the_loss(tmp_path, cache):
    recipe = replace(SHORT, steps=40, batch=4, accumulation=1, learning_rate=3e-3, trains="projections",
                     projection_share=1.0)
    trainer = begin(tmp_path, cache, recipe)
    before = trainer.task.validate(trainer.state.model, trainer.device)
    assert before == trainer.task.validate(trainer.state.model, trainer.device)
    trainer.run(lambda progress: None)
    after = trainer.task.validate(trainer.state.model, trainer.device)
    assert after.loss < 0.95 * before.loss


def test_a_run_of_other_settings_is_refused(cache, whole):
    folder = whole("published")[0].settings.folder
    with pytest.raises(ValueError, match="dropping was 0.0 and is now 0.1"):
        begin(folder, cache, replace(SHORT, dropping=0.1))


def test_a_file_that_no_run_made_is_not_overwritten(tmp_path, cache):
    (tmp_path / "attention.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="no attention.safetensors without its run"):
        begin(tmp_path, cache, SHORT)


def test_samples_are_those_of_the_published_loop(cache):
    """With Euler's steps, for a model that predicts no noise: the noise itself, scaled."""
    task = new_task(cache, SHORT)
    for parameter in task.model.unet.conv_out.parameters():
        parameter.data.zero_()
    scenes, found, targets = sample_latents(task, task.model, torch.device("cpu"), steps=3, count=2)
    assert torch.equal(scenes, torch.stack([cache.read(index).scene for index in range(2)]))
    assert torch.equal(targets, torch.stack([cache.read(index).target[:4] for index in range(2)]))
    noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    kept = task.schedule.alphas_cumprod[2 * (1000 // 3) + 1]
    torch.testing.assert_close(found, torch.stack(noise) / kept.sqrt() / 0.18215, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_a_model_that_knows_the_picture_leads_to_it_whatever_it_predicts(cache, predicts):
    schedule = noise_schedule(predicts)
    settings = RunSettings("unused", 0)
    task = InsertionTask(tiny_inserter(), cache, SHORT, settings, schedule, latent_scale=0.5)
    picture = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(9))

    class Knowing:
        optimizer = task.model.optimizer

        def predicted(self, noisy, timesteps, scene, context):
            kept = schedule.alphas_cumprod[timesteps][:, None, None, None]
            noise = (noisy - kept.sqrt() * picture) / (1 - kept).sqrt()
            return noise if predicts == "epsilon" else schedule.get_velocity(
                picture.expand_as(noisy), noise, timesteps)

    found = sample_latents(task, Knowing(), torch.device("cpu"), steps=3, count=2)[1]
    torch.testing.assert_close(found, picture.expand(2, -1, -1, -1) / 0.5, rtol=1e-3, atol=1e-3)


def test_a_sheet_has_a_row_for_each_of_four_triplets(cache):
    task = new_task(cache, RECIPES["blank"])
    sheet = sample_sheet(
        task, task.model, torch.device("cpu"), lambda latents: [Image.new("RGB", (32, 32))] * len(latents)
    )
    assert sheet.size == (3 * 32, 4 * 32)


@pytest.mark.parametrize("change", [
    {"rank": 0}, {"projection_share": -1.0}, {"dropping": 0.34}, {"trains": "everything"}, {"null": "ones"},
    {"dropping": float("nan")},
])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(RECOMMENDED, **change).check()


def test_every_preset_is_sound():
    assert "small card" in PRESETS
    for recipe in PRESETS.values():
        recipe.check()


def test_the_sizes_of_stable_diffusion_come_out_as_published(golden):
    config = {
        "model_channels": 320, "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "channel_mult": [1, 2, 4, 4], "num_heads": 8, "num_head_channels": -1, "context_dim": 768,
        "in_channels": 8, "out_channels": 4, "transformer_depth_middle": 1, "adm_in_channels": None,
    }
    unet = unet_of_sizes(config)
    expected = golden.facts("object_insertion_full_keys")["unet"]
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == expected
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.heads == 8


@pytest.mark.parametrize("change", [
    {"transformer_depth": [0, 2, 10]}, {"adm_in_channels": 2816}, {"transformer_depth_middle": 0},
    {"num_res_blocks": [1, 2, 1], "transformer_depth": [1, 1, 1, 0]},
])
def test_a_unet_of_another_structure_is_refused(change):
    config = {
        "model_channels": 32, "num_res_blocks": [1, 1, 1], "transformer_depth": [1, 1, 0],
        "channel_mult": [1, 2, 4], "num_heads": 8, "context_dim": 48, "in_channels": 8, "out_channels": 4,
        "transformer_depth_middle": 1,
    }
    with pytest.raises(ValueError, match="of the kind of Stable Diffusion 1.5, got one of another structure"):
        unet_of_sizes(config | change)


def test_objects_differ_from_the_start_also_in_half_precision():
    torch.manual_seed(0)
    tokens, query = torch.randn(6, 50, 64), queries(0, 1, 48).expand(6, -1, -1)
    for optimizer, told_apart in ((new_optimizer(64, 48), True), (EmbeddingOptimizer(64, 48), False)):
        with torch.autocast("cpu", torch.bfloat16):
            contexts = optimizer(tokens, query).float()
        spread = (contexts - contexts.mean(dim=0)).square().mean().sqrt()
        assert bool(spread > 0.03) == told_apart


def test_training_reads_the_mean_over_several_queries_as_inserting_does():
    torch.manual_seed(0)
    model, tokens = tiny_inserter(), torch.randn(1, 9, 32)
    noisy, scene = torch.randn(2, 1, 4, 8, 8)
    several = queries(3, 4, 24).flatten(0, 1)[None]
    with torch.no_grad():
        found = model(noisy, torch.tensor([500]), scene, tokens, several)
        wanted = model.predicted(
            noisy, torch.tensor([500]), scene, object_context(model.optimizer, tokens, 3, 4)
        )
    torch.testing.assert_close(found, wanted)
