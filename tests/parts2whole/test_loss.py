"""The published step of training: loss, gradients in all four models; what is left out of a batch."""

import copy
import random
from collections.abc import Iterator

import pytest
import torch
from diffusers import DDPMScheduler

from pit.parts2whole.loss import TRAINING_SCHEDULE, Batch, Drops, noise_loss, trainable
from pit.parts2whole.unets import Denoiser, blocks_of
from tests.golden import Golden, relative_error
from tests.parts2whole.cases import assert_close, words_in

# The published gradients, computed in float32, are themselves up to 3e-4 away from those in float64.
GRADIENT_TOLERANCE = 1e-3


def golden_batch(golden: Golden) -> tuple[Batch, dict[str, torch.Tensor]]:
    given = golden.below("parts2whole_tiny_io", "train/")
    count = sum(key.startswith("ref") and key.endswith("_text") for key in given)
    latents, labels, masks = (
        torch.stack([given[f"ref{number}_{what}"] for number in range(count)], 1)
        for what in ("latents", "text", "mask")
    )
    text, images = given["encoder"].tensor_split([words_in(golden)], 1)
    return Batch(
        given["latents"], given["noise"], given["timesteps"], text, images, latents, labels, masks,
        given["pose"],
    ), given


@pytest.fixture(scope="module")
def models(published) -> Iterator[tuple]:
    unet, *others = copy.deepcopy((published.unet, published.decoupled, published.reference_unet,
                                   published.pose_guider))
    denoiser = Denoiser(unet, others[0])
    models = denoiser, *others[1:]
    for model in models:
        model.requires_grad_(True)
    return models


def gradient(models: tuple, key: str) -> torch.Tensor:
    """That of a weight by its golden name."""
    denoiser, reference_unet, pose_guider = models
    owner, _, name = key.partition(".")
    if "_dc." in name:
        block, _, kind = name.removesuffix("_dc.weight").partition(".attn2.processor.")
        layer = denoiser.decoupled[blocks_of(denoiser.unet).index(block)]
        return getattr(layer, kind).weight.grad
    model = {"unet": denoiser.unet, "reference_unet": reference_unet, "pose_guider": pose_guider}[owner]
    return model.get_parameter(name).grad


def test_loss_and_gradients_equal_the_published_ones(golden, models):
    batch, given = golden_batch(golden)
    noisy = DDPMScheduler(**TRAINING_SCHEDULE).add_noise(batch.latents, batch.noise, batch.timesteps)
    assert_close(noisy, given["noisy"])
    losses, predicted = noise_loss(*models, batch)
    assert_close(predicted, given["pred"])
    assert_close(losses.mean()[None], given["loss"])
    losses.mean().backward()
    wanted = {key.removeprefix("grad/"): value for key, value in given.items() if key.startswith("grad/")}
    assert len(wanted) > 5
    for key, value in wanted.items():
        assert relative_error(gradient(models, key), value) <= GRADIENT_TOLERANCE, key


def test_all_but_the_outer_layers_of_the_denoising_unet_is_trained(models):
    denoiser = models[0]
    chosen = {id(each) for each in trainable(denoiser)}
    left_out = {name for name, each in denoiser.named_parameters() if id(each) not in chosen}
    outer = ("conv_in", "conv_norm_out", "conv_out")
    assert left_out == {f"unet.{name}.{kind}" for name in outer for kind in ("weight", "bias")}


@pytest.fixture
def batch() -> Batch:
    ones = torch.ones
    return Batch(
        ones(2, 4, 4, 4), ones(2, 4, 4, 4), torch.zeros(2).long(), ones(2, 77, 8), ones(2, 6, 8),
        torch.arange(3.0).reshape(1, 3, 1, 1, 1).expand(2, -1, 4, 4, 4), ones(2, 3, 77, 8),
        ones(2, 3, 1, 32, 32), ones(2, 3, 32, 32),
    )


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_nothing_or_everything_is_left_out(batch, rate):
    left = Drops(rate, rate).apply(batch, random.Random(0))
    kept = int(rate == 0)
    assert (left.pose is not None) == kept and left.references.shape[1] == 3 * kept
    assert left.labels.shape[1] == left.masks.shape[1] == 3 * kept
    assert left.text.unique().tolist() == left.images.unique().tolist() == [kept]


def test_each_reference_is_left_out_by_itself(batch):
    seen = set()
    for seed in range(60):
        left = Drops(0.4, 0.5).apply(batch, random.Random(seed))
        numbers = tuple(left.references[0, :, 0, 0, 0].int().tolist())
        seen.add(numbers)
        assert left.labels.shape[1] == left.masks.shape[1] == len(numbers)
        assert left.images.shape == batch.images.shape
    assert {(), (0,), (0, 2), (0, 1, 2)} <= seen


def test_a_batch_without_references_and_pose_is_trained_too(golden, models):
    batch = Drops(1.0, 0.0).apply(golden_batch(golden)[0], random.Random(0))
    losses, _ = noise_loss(*models, batch)
    assert losses.shape == (2,) and losses.isfinite().all()
