"""The published step of training: loss, gradients in all four models; what is left out of a batch."""

import copy
import random
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler

from pit.parts2whole.training.learned import prepare
from pit.parts2whole.training.recipes import PUBLISHED
from pit.parts2whole.training.step import TRAINING_SCHEDULE, Drops, PartsBatch, WholeModel
from pit.parts2whole.training.task import PartsTask, stacked
from pit.parts2whole.unets import blocks_of
from tests.golden import Golden, relative_error
from tests.parts2whole.cases import assert_close, words_in

# The published gradients, computed in float32, are themselves up to 3e-4 away from those in float64.
GRADIENT_TOLERANCE = 1e-3
IN_FP32 = replace(PUBLISHED, precision="fp32", gradient_checkpointing=False)


def golden_batch(golden: Golden) -> tuple[PartsBatch, dict[str, torch.Tensor]]:
    given = golden.below("parts2whole_tiny_io", "train/")
    count = sum(key.startswith("ref") and key.endswith("_text") for key in given)
    latents, labels, masks = (
        torch.stack([given[f"ref{number}_{what}"] for number in range(count)], 1)
        for what in ("latents", "text", "mask")
    )
    text, images = given["encoder"].tensor_split([words_in(golden)], 1)
    noisy = DDPMScheduler(**TRAINING_SCHEDULE).add_noise(given["latents"], given["noise"], given["timesteps"])
    rows = len(noisy)
    return PartsBatch(
        noisy, given["noise"], given["timesteps"], text, images, latents, labels, masks,
        torch.ones(rows, count), given["pose"], torch.ones(rows),
    ), given


def predicted(model: WholeModel, batch: PartsBatch) -> torch.Tensor:
    return model(**{name: value for name, value in vars(batch).items() if name != "wanted"})


def losses(model: WholeModel, batch: PartsBatch) -> torch.Tensor:
    return PartsTask.losses(None, model, batch)


@pytest.fixture
def make(published):
    """Makes a model to train by a recipe."""
    return lambda **changes: prepare(WholeModel(copy.deepcopy(published)), replace(IN_FP32, **changes), 0)


def gradient(model: WholeModel, key: str) -> torch.Tensor:
    """That of a weight by its golden name."""
    denoiser = model.denoiser
    owner, _, name = key.partition(".")
    if "_dc." in name:
        block, _, kind = name.removesuffix("_dc.weight").partition(".attn2.processor.")
        layer = denoiser.decoupled[blocks_of(denoiser.unet).index(block)]
        return getattr(layer, kind).weight.grad
    network = {
        "unet": denoiser.unet, "reference_unet": model.reference_unet, "pose_guider": model.pose_guider,
    }[owner]
    return network.get_parameter(name).grad


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_the_published_ones(golden, make, checkpointing):
    batch, given = golden_batch(golden)
    assert_close(batch.noisy, given["noisy"])
    model = make(gradient_checkpointing=checkpointing).train()
    assert_close(predicted(model, batch), given["pred"])
    found = losses(model, batch)
    assert_close(found.mean()[None], given["loss"])
    found.mean().backward()
    wanted = {key.removeprefix("grad/"): value for key, value in given.items() if key.startswith("grad/")}
    outer = ("unet.conv_in.", "unet.conv_norm_out.", "unet.conv_out.")
    frozen = [key for key in wanted if key.startswith(outer)]
    assert len(wanted) - len(frozen) > 5
    for key in wanted.keys() - set(frozen):
        assert relative_error(gradient(model, key), wanted[key]) <= GRADIENT_TOLERANCE, key


def test_all_but_the_outer_layers_of_the_denoising_unet_is_trained(make):
    left_out = {name for name, each in make().named_parameters() if not each.requires_grad}
    outer = ("conv_in", "conv_norm_out", "conv_out")
    assert left_out == {f"denoiser.unet.{name}.{kind}" for name in outer for kind in ("weight", "bias")}


@pytest.mark.parametrize("trains, both, precision", [
    ("lora", True, "bf16"), ("reference lora", False, "bf16"), ("lora", True, "fp32"),
])
def test_a_lora_leaves_the_unets_as_they_are(golden, make, trains, both, precision):
    model = make(trains=trains, rank=2, precision=precision).train()
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all(each.dtype == torch.float32 for each in model.parameters() if each.requires_grad)
    assert any(".lora_" in name and "reference_unet" in name for name in trained)
    assert any(".lora_" in name and "denoiser.unet" in name for name in trained) == both
    assert {name for name in trained if ".lora_" not in name} == {
        name for name, _ in model.named_parameters() if "decoupled" in name or "pose_guider" in name
    }
    batch, given = golden_batch(golden)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = losses(model, batch)
    assert abs(found.mean() / given["loss"] - 1).max() < (0.05 if precision == "bf16" else 1e-4)
    found.mean().backward()
    missing = [name for name in trained if model.get_parameter(name).grad is None]
    assert missing == [] and not any(
        each.grad is not None for each in model.parameters() if not each.requires_grad
    )


def rows_of(batch: PartsBatch, rows: slice) -> PartsBatch:
    return batch.each(lambda value: value[rows])


def test_each_picture_of_a_batch_has_what_it_is_given_and_no_more(golden, make):
    """A picture without references, without a pose, with some of them: as if it were alone in its batch."""
    model, batch = make(), golden_batch(golden)[0]
    count = batch.present.shape[1]
    assert len(batch.noisy) == 2 and count > 1
    present = torch.zeros(2, count)
    present[0, 0] = 1
    mixed = replace(batch, present=present, posed=torch.tensor([0.0, 1]))
    first = replace(
        rows_of(batch, slice(0, 1)), references=batch.references[:1, :1], labels=batch.labels[:1, :1],
        masks=batch.masks[:1, :1], present=torch.ones(1, 1), posed=torch.zeros(1),
    )
    none = {name: getattr(batch, name)[1:, :0] for name in ("references", "labels", "masks", "present")}
    second = replace(rows_of(batch, slice(1, 2)), **none)
    with torch.no_grad():
        found = predicted(model, mixed)
        assert_close(found[:1], predicted(model, first))
        assert_close(found[1:], predicted(model, second))
        posed = predicted(model, replace(mixed, posed=torch.ones(2)))
    assert (found[0] - posed[0]).abs().max() > 1e-3 and torch.equal(found[1], posed[1])


def test_of_several_processes_each_uses_all_weights_even_without_references(golden, make):
    model, batch = make(), golden_batch(golden)[0]
    alone = replace(
        batch, references=torch.zeros_like(batch.references[:, :1]), labels=batch.labels[:, :1],
        masks=torch.zeros_like(batch.masks[:, :1]), present=torch.zeros(2, 1),
    )
    losses(model, alone).mean().backward()
    missing = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    assert missing == []


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_nothing_or_everything_is_left_out(rate):
    kept = Drops(rate, rate).keep(3, random.Random(0))
    assert kept == ((True, (0, 1, 2), True) if rate == 0 else (False, (), False))


def test_what_is_left_out_is_drawn_as_often_as_published():
    rng = random.Random(0)
    drawn = [Drops(0.2, 0.1).keep(3, rng) for _ in range(20_000)]

    def share(what) -> float:
        return sum(map(what, drawn)) / len(drawn)

    assert share(lambda kept: not kept.pose) == pytest.approx(0.2, abs=0.01)
    assert share(lambda kept: not kept.prompt) == pytest.approx(0.1, abs=0.01)
    assert share(lambda kept: not kept.references) == pytest.approx(0.2 + 0.8 * 0.2**3, abs=0.01)
    assert share(lambda kept: 1 in kept.references) == pytest.approx(0.8 * 0.8, abs=0.01)
    assert {kept.references for kept in drawn} >= {(), (0,), (0, 2), (0, 1, 2)}


def test_rows_are_filled_up_with_zeros():
    found = stacked([torch.ones(2, 3, 4), torch.ones(0, 3, 4)], 3)
    assert found.shape == (2, 3, 3, 4) and found.sum((2, 3)).tolist() == [[12, 12, 0], [0, 0, 0]]
    assert stacked([torch.ones(0, 5)] * 2, 0).shape == (2, 0, 5)
