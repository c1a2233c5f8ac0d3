"""Training Parts2Whole by the one trainer: what it draws, moves and writes, resuming and Cancel."""
from __future__ import annotations

import copy
import functools
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from pit.files.weights import WeightFileError, read_state
from pit.parts2whole.files import load_parts2whole
from pit.parts2whole.pose import PoseGuider
from pit.parts2whole.training.learned import merged_weights, prepare, write_parts
from pit.parts2whole.training.recipes import PRESETS, PUBLISHED, PartsRecipe
from pit.parts2whole.training.samples import sample_sheet
from pit.parts2whole.training.start import new_guider, new_parts
from pit.parts2whole.training.step import Kept, WholeModel
from pit.parts2whole.training.task import PartsTask, Row, everything
from pit.parts2whole.unets import blocks_of
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.parts2whole.cases import assert_close, load_wide
from tests.parts2whole.training.people import encoded
from tests.parts2whole.training.test_step import predicted

SHORT = replace(
    PUBLISHED, steps=4, batch=2, learning_rate=1e-3, precision="fp32", gradient_checkpointing=False, rank=2
)
RECIPES = {
    "everything": replace(SHORT, ema_decay=0.9),
    "lora": replace(
        SHORT, trains="lora", precision="bf16", gradient_checkpointing=True, schedule="cosine", warmup=2,
    ),
    "reference lora": replace(SHORT, trains="reference lora", accumulation=2),
}


class Cancelled(BaseException):
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return encoded(tmp_path_factory.mktemp("people"), 4)


@pytest.fixture(scope="module")
def make(published):
    return lambda: WholeModel(copy.deepcopy(published))


@pytest.fixture(scope="module")
def task(cache, make):
    return PartsTask(make(), cache, RECIPES["everything"], RunSettings("unused", 0))


@pytest.fixture(scope="module")
def run(cache, make):
    def run(folder, recipe, cancel_at=None):
        def on_step(progress):
            if progress.step == cancel_at:
                raise Cancelled

        settings = RunSettings(folder, save_every=3, validate_every=recipe.steps)
        trainer = Trainer(
            PartsTask(make(), cache, recipe, settings), recipe, settings, Accelerator(cpu=True)
        )
        return trainer, trainer.run(on_step)

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run):
    """By the name of a recipe, the trainer of a run without a stop, and the file that it wrote."""
    return functools.cache(lambda name: run(tmp_path_factory.mktemp("whole"), RECIPES[name]))


def states_of(folder):
    parts = load_parts2whole(folder)
    networks = (parts.unet, parts.reference_unet, parts.pose_guider, parts.decoupled)
    return [network.state_dict() for network in networks]


def moved(before, after):
    return [any(not torch.equal(one[key], other[key]) for key in one)
            for one, other in zip(before, after, strict=True)]


@pytest.mark.parametrize("name, expected", [
    ("everything", [True] * 4), ("lora", [True] * 4), ("reference lora", [False, True, True, True]),
])
def test_a_run_writes_a_folder_that_is_loaded_and_predicts_as_the_trainer_does(
    whole, published_folder, cache, name, expected
):
    trainer, path = whole(name)
    assert path.name == "decoupled_attn.pth" and trainer.state.step == 4
    assert moved(states_of(published_folder), states_of(path.parent)) == expected
    assert "training" in read_state(path)[1]
    loaded = WholeModel(load_wide(path.parent))
    row = Row(300, 1, everything(cache.examples[2]))
    batch = trainer.task.batch([cache.read(cache.examples[2])], [row])
    with torch.no_grad(), trainer.state.weights_to_use() as model:
        # In fp32 both, so that the types of the training do not show.
        found, own = predicted(loaded, batch), predicted(copy.deepcopy(model).float().eval(), batch)
    assert_close(found, own)


@pytest.mark.parametrize("name", ["everything", "lora"])
def test_going_on_is_as_never_having_stopped(whole, run, tmp_path, name):
    with pytest.raises(Cancelled):
        run(tmp_path, RECIPES[name], cancel_at=2)
    assert not (tmp_path / "decoupled_attn.pth").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]
    trainer, path = run(tmp_path, RECIPES[name])
    first, again = states_of(whole(name)[1].parent), states_of(path.parent)
    assert not any(moved(first, again))


def test_a_run_of_other_settings_is_not_resumed(whole, run):
    folder = whole("lora")[1].parent
    with pytest.raises(ValueError, match="reference_dropout was 0.2 and is now 0.5"):
        run(folder, replace(RECIPES["lora"], reference_dropout=0.5))


def test_files_of_other_origin_are_not_overwritten(run, tmp_path):
    for name in ("unet", "reference_unet", "pose_guider", "decoupled_attn.pth"):
        folder = tmp_path / name
        (folder / name).mkdir(parents=True)
        with pytest.raises(ValueError, match=f"expected no {name} without its run"):
            run(folder, RECIPES["lora"])


def test_it_learns(cache, make, tmp_path):
    recipe = replace(SHORT, steps=20, batch=4, learning_rate=1e-3, reference_dropout=0.0, prompt_dropout=0.0)
    settings = RunSettings(tmp_path, save_every=100, validate_every=100)
    task = PartsTask(make(), cache, recipe, settings)
    before, after = task.validate(task.model, torch.device("cpu")), []
    trainer = Trainer(task, recipe, settings, Accelerator(cpu=True))
    trainer.run(lambda progress: after.append(progress.validation))
    assert after[-1].loss < 0.9 * before.loss, (before, after[-1])


def test_a_row_is_the_same_however_the_rows_are_divided(task):
    together = task.draw(3, range(4), 4)
    alone = [task.draw(3, range(row, row + 1), 4) for row in range(4)]
    for row, one in enumerate(alone):
        count = one.references.shape[1]
        assert torch.equal(one.noisy[0], together.noisy[row]) and torch.equal(one.pose[0], together.pose[row])
        assert torch.equal(one.references[0], together.references[row, :count])
        assert torch.equal(one.present[0], together.present[row, :count])
        assert not together.present[row, count:].any() and torch.equal(one.text[0], together.text[row])
    again = task.draw(3, range(4), 4)
    assert all(torch.equal(getattr(again, name), value) for name, value in vars(together).items())


def test_all_examples_are_seen_in_each_pass_in_another_order(task):
    texts = [task.draw(step, range(4), 4).text for step in range(8)]
    orders = [tuple(row[0, 0].item() for row in text if row.any()) for text in texts]
    assert len(set(orders)) > 2 and max(len(set(order)) for order in orders) == 4


def test_what_is_left_out_is_zero_and_image_tokens_of_left_out_references_stay(task, cache):
    example = cache.examples[2]
    sample = cache.read(example)

    def batch(*kept):
        return task.batch([sample] * len(kept), [Row(10, 5, each) for each in kept])

    full = batch(everything(example))
    found = batch(Kept(False, (1,), True), Kept(True, (), False), Kept(True, (0, 2), True))
    assert found.posed.tolist() == [0, 1, 1] and found.present.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert torch.equal(found.references[0, 0], full.references[0, 1])
    assert torch.equal(found.labels[2], full.labels[0, [0, 2]]) and not found.references[0, 1].any()
    assert torch.equal(found.images[0], full.images[0]) and full.images.shape[1] == 3
    assert not found.text[1].any() and not found.images[1].any() and found.text[0].any()
    assert full.references.abs().max() <= 0.18215 + 1e-6  # scaled like the target
    nothing = batch(Kept(False, (), False))
    assert nothing.references.shape[1] == 0 and task.losses(task.model, nothing).isfinite().all()


def test_validation_repeats_and_uses_what_is_held_out(tmp_path, make):
    cache = encoded(tmp_path, 3, held_out=2)
    task = PartsTask(make(), cache, SHORT, RunSettings("unused", 0))
    assert task.shown == cache.held_out and len(task.training) == 3
    first, second = (task.validate(task.model, torch.device("cpu")) for _ in range(2))
    assert first == second and len(first.by_time) == 8 and 0 < first.loss < 10
    assert "3 examples to train on, 2 held out" in task.about()


def test_a_sheet_shows_pose_references_result_and_target(task):
    def decode(latents):
        values = (latents[:, :3].clamp(-1, 1) / 2 + 0.5).mul(255).byte()
        return [Image.fromarray(each.movedim(0, -1).numpy()).resize((64, 64)) for each in values]

    sheet = sample_sheet(task, task.model, torch.device("cpu"), decode, steps=2)
    assert sheet.size == (6 * 160, 4 * 160) and len(sheet.getcolors(1 << 20)) > 50


def test_a_new_one_begins_as_the_published_training_does(published):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    parts = new_parts(copy.deepcopy(published.unet), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not parts.pose_guider.conv_out.weight.any() and parts.pose_guider.conv_in.weight.any()
    unet, reference = parts.unet.state_dict(), parts.reference_unet.state_dict()
    assert reference.keys() == published.reference_unet.state_dict().keys()
    assert all(torch.equal(value, unet[key]) for key, value in reference.items())
    for layer, block in zip(parts.decoupled, blocks_of(parts.unet), strict=True):
        attention = parts.unet.get_submodule(f"{block}.attn2")
        assert torch.equal(layer.to_k.weight, attention.to_k.weight)
        assert torch.equal(layer.to_v.weight, attention.to_v.weight)
    same, other = (new_parts(copy.deepcopy(published.unet), seed).pose_guider for seed in (3, 4))
    assert torch.equal(same.conv_in.weight, parts.pose_guider.conv_in.weight)
    assert not torch.equal(other.conv_in.weight, parts.pose_guider.conv_in.weight)


def test_merged_weights_are_those_of_the_network_with_its_lora(make):
    model = prepare(make(), RECIPES["reference lora"], 0)
    before = merged_weights(model.reference_unet)
    plain = make().reference_unet.state_dict()
    assert before.keys() == plain.keys() and all(torch.equal(before[key], plain[key]) for key in plain)
    for name, parameter in model.reference_unet.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    after = merged_weights(model.reference_unet)
    changed = {key for key in plain if not torch.equal(after[key], before[key])}
    assert changed and all(".attn" in key and key.endswith(".weight") for key in changed)


def test_a_folder_that_cannot_be_written_is_named(make, tmp_path):
    (tmp_path / "unet").write_bytes(b"")
    with pytest.raises(WeightFileError, match="could not be written"):
        write_parts(tmp_path, make(), {})


@pytest.mark.parametrize("change", [
    {"rank": 0}, {"trains": "nothing"}, {"reference_dropout": 1.1}, {"prompt_dropout": -0.1},
    {"prompt_dropout": float("nan")},
])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(PUBLISHED, **change).check()


def test_every_preset_is_sound():
    assert PartsTask.thrifty_preset in PRESETS and next(iter(PRESETS)) == "recommended"
    for recipe in PRESETS.values():
        recipe.check()
    assert replace(PRESETS["published"], precision="fp32") == PartsRecipe(
        steps=30_000, batch=8, learning_rate=2e-5, weight_decay=0.01, gradient_checkpointing=True,
    )


def test_what_was_written_keeps_heads_and_norms(whole, published):
    parts = load_parts2whole(whole("lora")[1].parent)
    for name in ("attention_head_dim", "norm_num_groups"):
        assert parts.unet.config[name] == published.unet.config[name]
        assert parts.reference_unet.config[name] == published.reference_unet.config[name]


def test_a_new_guider_tells_poses_apart_in_half_precision():
    torch.manual_seed(0)
    poses = torch.rand(2, 3, 8, 8).repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    for guider, told_apart in ((new_guider(4), True), (PoseGuider(4), False)):
        assert not guider(poses).any()
        guider.conv_out = torch.nn.Identity()
        with torch.autocast("cpu", torch.bfloat16):
            first, second = guider(poses).float()
        apart = (first - second).square().mean().sqrt() / first.square().mean().sqrt()
        assert bool(apart > 0.1) == told_apart
