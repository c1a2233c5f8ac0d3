"""Training part words by the one trainer: its losses, what it moves, and what it writes."""
from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from pit.files.lora import Lora, merge_lora, read_lora
from pit.partcraft.files import load_part_words
from pit.partcraft.loss import attention_loss, maps_in_texts
from pit.partcraft.mapper import TokenMapper
from pit.partcraft.training.painter import PartPainter, lora_of, new_mapper, prepare
from pit.partcraft.training.pictures import as_masks
from pit.partcraft.training.recipes import PRESETS, PUBLISHED, RECOMMENDED
from pit.partcraft.training.samples import sample_latents, sample_sheet
from pit.partcraft.training.task import PartTask, mean_where
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.golden import assert_equal, relative_error
from tests.partcraft.training.small import CODES, PARTS, tiny_painter, tiny_tokens

SHORT = replace(PUBLISHED, steps=6, batch=2, accumulation=2, learning_rate=1e-2, map_level=2)
# With the number of text encoders.
RECIPES = {
    "published": (SHORT, 1),
    "SDXL": (replace(SHORT, attention_weight=0.1), 2),
    "everything": (replace(
        SHORT, attention_form="present", dropping=0.5, flips=True, masked=True, class_name="toy",
        precision="bf16", gradient_checkpointing=True, ema_decay=0.9, rank=2,
    ), 1),
    "SDXL, saving memory": (replace(
        SHORT, gradient_checkpointing=True, optimizer="adafactor", schedule="cosine", noise_offset=0.1), 2),
    "without attention loss": (replace(SHORT, attention_weight=0.0), 1),
    "without projection": (replace(SHORT, projections=0), 1),
}


class Cancelled(BaseException):
    pass


def new_task(cache, recipe=SHORT, encoders=1, folder="unused"):
    settings = RunSettings(folder, save_every=3, validate_every=recipe.steps)
    return PartTask(tiny_painter(recipe, encoders), tiny_tokens(encoders), cache, recipe, settings), settings


def begin(folder, cache, name, **changes):
    recipe, encoders = RECIPES[name]
    recipe = replace(recipe, **changes)
    task, settings = new_task(cache, recipe, encoders, folder)
    return Trainer(task, recipe, settings, Accelerator(cpu=True))


def run(folder, cache, name, cancel_at=None, **changes):
    def on_step(progress):
        if progress.step == cancel_at:
            raise Cancelled

    return begin(folder, cache, name, **changes).run(on_step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """By the name of a recipe, the trainer of a run without a stop, and the file that it wrote."""
    @functools.cache
    def run_whole(name):
        trainer = begin(tmp_path_factory.mktemp("whole"), cache, name)
        return trainer, trainer.run(lambda progress: None)

    return run_whole


@pytest.mark.parametrize("name", RECIPES)
def test_resuming_equals_never_having_stopped(tmp_path, cache, whole, name):
    with pytest.raises(Cancelled):
        run(tmp_path, cache, name, cancel_at=4)
    resumed, expected = load_part_words(run(tmp_path, cache, name)), load_part_words(whole(name)[1])
    for ours, theirs in ((resumed.mapper.state_dict(), expected.mapper.state_dict()),
                         (resumed.lora, expected.lora)):
        assert ours.keys() == theirs.keys() and theirs
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", RECIPES)
def test_words_and_lora_are_trained_and_nothing_else(whole, name):
    (trainer, path), (recipe, encoders) = whole(name), RECIPES[name]
    before, words = prepare(tiny_painter(recipe, encoders), recipe, 0), load_part_words(path)
    assert words.mapper.dim == sum(before.widths) and words.vocabulary.names() == [
        "background", "part1", "part2"]
    learned = words.mapper.state_dict()
    assert all(not torch.equal(value, learned[key]) for key, value in before.mapper.state_dict().items())
    ups = [value for key, value in words.lora.items() if key.endswith("lora_up.weight")]
    assert len(ups) == 8 * 4 and all(value.any() for value in ups)  # two attentions in four places
    assert all(len(value) == recipe.rank for key, value in words.lora.items() if "lora_down" in key)
    frozen = {
        key: value for key, value in trainer.state.model.named_parameters() if not value.requires_grad
    }
    given = dict(before.named_parameters())
    assert len(frozen) + len(ups) * 2 + len(learned) == len(given)
    assert all(torch.equal(value, given[key]) for key, value in frozen.items())


@torch.no_grad()
def test_the_file_draws_what_was_trained(whole):
    """The base with the written LoRA and words predicts what the trained model predicts."""
    for name in ("published", "SDXL"):
        (trainer, path), (recipe, encoders) = whole(name), RECIPES[name]
        words, fresh = load_part_words(path), tiny_painter(recipe, encoders)
        merge_lora(fresh.unet, Lora(read_lora(path).unet, {}, ()))
        fresh.mapper = words.mapper
        batch = trainer.task.draw(0, range(2), 2)
        given = batch.noisy, batch.timesteps, batch.ids, batch.codes, batch.time_ids
        with trainer.state.weights_to_use() as model:
            assert_equal(fresh(*given)[0], model(*given)[0])
        assert not torch.equal(tiny_painter(recipe, encoders)(*given)[0], fresh(*given)[0])


def test_a_step_sees_each_picture_with_its_masks_and_codes(cache):
    task, _ = new_task(cache, replace(SHORT, flips=True))
    batch = task.draw(3, range(12), 12)
    kept = task.schedule.alphas_cumprod[batch.timesteps][:, None, None, None]
    clean = (batch.noisy - (1 - kept).sqrt() * batch.wanted) / kept.sqrt()
    seen = Counter()
    for row, labels, codes, time_ids in zip(
        clean, batch.labels, batch.codes, batch.time_ids, strict=True
    ):
        matches = [
            (index, mirrored) for index in range(6) for variant in range(2) for mirrored in (False, True)
            for latents, times, parts in [cache.read(index, variant).shown(mirrored)]
            if (row - latents[:4]).abs().max() < 0.2 and torch.equal(labels, parts)
            and torch.equal(times, time_ids) and torch.equal(codes, cache.codes(index, cache.read(index)))
        ]
        assert matches
        seen.update(matches)
    assert len({index for index, _ in seen}) == 6 and {mirrored for _, mirrored in seen} == {False, True}


def test_a_mirrored_picture_has_mirrored_masks(cache):
    for index in range(6):
        sample = cache.read(index)
        plain, mirrored = sample.shown(False), sample.shown(True)
        assert torch.equal(plain[2].flip(-1), mirrored[2]) and not torch.equal(plain[2], mirrored[2])
        assert_equal(plain[0].flip(-1), mirrored[0])
        columns = torch.arange(plain[2].shape[1]).float()
        masks = [(plain[2] == part).float() for part in (1, 2)]
        red, blue = (mask.sum(0) @ columns / mask.sum() for mask in masks)
        assert red < blue


def test_without_flips_nothing_is_mirrored(cache):
    task, _ = new_task(cache)
    firsts = {tuple(cache.read(i, v).labels.long().flatten().tolist()) for i in range(6) for v in range(2)}
    assert {tuple(row.flatten().tolist()) for row in task.draw(0, range(16), 16).labels} <= firsts


def test_two_halves_of_a_step_are_the_whole(cache):
    task, _ = new_task(cache, RECIPES["everything"][0])
    whole, halves = task.draw(5, range(4), 4), [task.draw(5, range(i, i + 2), 4) for i in (0, 2)]
    for name, value in vars(whole).items():
        assert torch.equal(value, torch.cat([getattr(half, name) for half in halves])), name


@torch.no_grad()
@pytest.mark.parametrize("form", ["published", "present"])
def test_the_loss_of_a_sample_does_not_depend_on_the_others(cache, form):
    """And the mean of the published form is the published loss of the batch."""
    task, _ = new_task(cache, replace(SHORT, attention_form=form, dropping=0.5))
    batch = task.draw(1, range(4), 4)
    together = torch.stack(task.both_losses(task.model, batch))
    apart = torch.cat([
        torch.stack(task.both_losses(task.model, batch.each(lambda value, i=i: value[i:i + 1])))
        for i in range(4)
    ], dim=1)
    assert relative_error(together, apart) < 1e-4
    if form == "published":
        given = batch.noisy, batch.timesteps, batch.ids, batch.codes, batch.time_ids
        found = maps_in_texts(task.model(*given, looking=True)[1], batch.ids[:, 0], task.tokens.words)
        assert_equal(together[1].mean(), attention_loss(*found, as_masks(batch.labels, PARTS)))


@torch.no_grad()
def test_without_the_attention_loss_nobody_looks(cache):
    task, _ = new_task(cache, replace(SHORT, attention_weight=0.0))
    task.losses(task.model, task.draw(0, range(2), 2))
    assert task.model.hooks == []
    with_loss, _ = new_task(cache)
    with_loss.losses(with_loss.model, with_loss.draw(0, range(2), 2))
    assert len(with_loss.model.hooks) == 4


@torch.no_grad()
def test_a_masked_training_learns_from_the_parts_in_the_text(cache):
    recipe = replace(SHORT, attention_weight=0.0, min_snr_gamma=0.0)
    (plain, _), (masked, _) = new_task(cache, recipe), new_task(cache, replace(recipe, masked=True))
    batch = plain.draw(0, range(1), 1)
    # All of the picture when the text names all parts, and as published; else what it names.
    assert_equal(masked.losses(masked.model, batch), plain.losses(plain.model, batch))
    fewer = replace(batch, ids=masked.tokens.ids([1])[None])
    places = masked.named_places(fewer.ids, as_masks(fewer.labels, PARTS))
    assert torch.equal(places, (batch.labels == 1).float()) and 0 < places.mean() < 0.5
    elsewhere = replace(fewer, wanted=fewer.wanted + 5 * (
        1 - torch.nn.functional.interpolate(places[:, None], fewer.wanted.shape[2:])))
    assert_equal(masked.losses(masked.model, elsewhere), masked.losses(masked.model, fewer))
    assert plain.losses(plain.model, elsewhere) > plain.losses(plain.model, fewer) + 1
    nothing = replace(batch, ids=masked.tokens.ids(["toy"])[None])
    assert masked.losses(masked.model, nothing).tolist() == [0.0]


def test_the_mean_over_places():
    errors = torch.arange(16.0).view(1, 4, 4)
    places = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert mean_where(errors, places).tolist() == [(0 + 1 + 4 + 5) / 4]
    assert mean_where(errors, torch.ones(1, 2, 2)).tolist() == [7.5]
    assert mean_where(errors, torch.zeros(1, 2, 2)).tolist() == [0.0]


def test_training_lowers_the_loss_and_turns_words_to_their_parts(tmp_path, cache):
    trainer = begin(tmp_path, cache, "published", steps=60, attention_weight=1.0, attention_form="present")
    task, model = trainer.task, trainer.state.model

    @torch.no_grad()
    def measured():
        batch = task.draw(999, range(8), 8)
        return [each.mean().item() for each in task.both_losses(model, batch)]

    before, first = measured(), task.validate(model, trainer.device)
    assert first == task.validate(model, trainer.device)
    trainer.run(lambda progress: None)
    after = measured()
    assert after[1] < 0.9 * before[1], (before, after)
    assert task.validate(model, trainer.device).loss < first.loss


@pytest.mark.parametrize("change, message", [
    ({"rank": 2}, "was another one|rank was 4 and is now 2"), ({"dropping": 0.1}, "dropping was 0.0"),
    ({"attention_form": "present"}, "attention_form was 'published' and is now 'present'"),
])
def test_a_run_of_other_settings_is_refused(cache, whole, change, message):
    with pytest.raises(ValueError, match=message):
        begin(whole("published")[0].settings.folder, cache, "published", **change)


def test_a_base_of_other_sizes_is_refused(cache):
    with pytest.raises(ValueError, match="reads texts 64 numbers wide, got 1 of 24"):
        two = tiny_painter(SHORT, 2)
        PartPainter(two.unet, two.encoders[:1], two.mapper, [1, 2, 3], 2)
    with pytest.raises(ValueError, match="Expected part words 24 numbers wide"):
        one = tiny_painter(SHORT)
        PartPainter(one.unet, one.encoders, TokenMapper(PARTS, CODES, 32), [1, 2, 3], 2)


def test_maps_of_a_level_without_layers_are_refused(cache):
    task, _ = new_task(cache, replace(SHORT, map_level=4))
    with pytest.raises(ValueError, match="a layer with 2 x 2 places, got none"):
        task.losses(task.model, task.draw(0, range(1), 1))


def test_words_without_a_projection_begin_as_large_as_those_of_the_encoder():
    readers = tiny_painter(SHORT).encoders
    spread = readers[0].get_input_embeddings().weight.std().item()
    alone, projected = (
        new_mapper(PARTS, 50, readers, depth, 0).table().std().item() for depth in (0, 1)
    )
    assert alone / spread == pytest.approx(1, rel=0.2) and projected > 10 * spread


def test_seeds_decide_the_first_weights_and_leave_the_global_generator_alone(cache):
    before = torch.random.get_rng_state()
    first, same, other = (
        lora_of(prepare(tiny_painter(SHORT), SHORT, seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    key = next(key for key in first if "lora_down" in key)
    assert torch.equal(first[key], same[key]) and not torch.equal(first[key], other[key])


def test_samples_are_drawn_from_the_words(cache, whole):
    trainer, _ = whole("SDXL")
    truth, drawn = sample_latents(trainer.task, trainer.state.model, torch.device("cpu"), count=2, steps=2)
    again = sample_latents(trainer.task, trainer.state.model, torch.device("cpu"), count=2, steps=2)[1]
    assert truth.shape == drawn.shape == (2, 4, 8, 8) and torch.equal(drawn, again) and drawn.isfinite().all()
    assert torch.equal(truth[0], cache.read(0).latents[0, :4])
    sheet = sample_sheet(
        trainer.task, trainer.state.model, torch.device("cpu"),
        lambda latents: [Image.new("RGB", (32, 32))] * len(latents),
    )
    assert sheet.size == (2 * 32, 4 * 32)


@pytest.mark.parametrize("change", [
    {"rank": 0}, {"projections": -1}, {"projections": 17}, {"attention_weight": -1.0}, {"map_level": 3},
    {"attention_weight": float("nan")}, {"attention_form": "other"}, {"dropping": 1.5}, {"templates": -0.1},
    {"kept": -1}, {"min_snr_gamma": -1.0}, {"noise_offset": float("inf")},
])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(RECOMMENDED, **change).check()


def test_every_preset_is_sound_and_the_baselines_differ_in_one_setting():
    for recipe in PRESETS.values():
        recipe.check()
        assert recipe.batch * recipe.accumulation == 8
    assert PRESETS["without attention loss"] == replace(RECOMMENDED, attention_weight=0.0)
    assert PRESETS["without projection"] == replace(RECOMMENDED, projections=0)


def test_the_run_tells_what_it_trains_on(cache):
    told = new_task(cache)[0].about()
    assert told.startswith("6 pictures to train on") and "which is few" in told


def test_texts_follow_from_the_step(cache):
    task, _ = new_task(cache, replace(SHORT, dropping=0.5))
    first = [task.draw(step, range(4), 4).ids for step in (0, 0, 1)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
