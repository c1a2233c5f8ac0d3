"""What the model is told of an object: pixels, queries, contexts, and what training drops."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pit.object_insertion import condition
from pit.object_insertion.condition import (
    drop_conditions,
    null_context,
    object_context,
    object_pictures,
    object_pixels,
    queries,
)
from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer, LegacyEmbeddingOptimizer
from pit.training.denoising import noise_schedule
from tests.golden import assert_equal, number_in

TINY = "object_insertion_tiny_io"
FEATURES = torch.linspace(-3, 3, 2 * 9 * 32).cos().reshape(2, 9, 32)
WIDE = Image.fromarray(np.arange(20 * 60 * 3, dtype=np.uint8).reshape(20, 60, 3))


@pytest.fixture
def random_optimizer():
    torch.manual_seed(1)
    return EmbeddingOptimizer(32, 48).requires_grad_(False)


def test_pixel_values_of_an_object_are_the_published_ones(golden):
    io = golden.below(TINY, "img.")
    picture = Image.fromarray(io["object_uint8"].numpy())
    assert_equal(object_pixels(object_pictures([picture])), io["object_pixel_values"])


@pytest.mark.golden_keys(TINY, r"img\.object_train_norescale_crop\d+")
def test_pixel_values_as_trained_are_the_published_ones(golden, key):
    io = golden.tensors(TINY)
    crop = slice(100, 100 + io[key].shape[-1])
    picture = Image.fromarray(io["img.object_uint8"].numpy())
    pixels = object_pixels(object_pictures([picture]), condition.AS_TRAINED)
    assert_equal(pixels[:, :, crop, crop], io[key])


def test_an_object_is_cropped_squashed_or_letterboxed():
    half = Image.new("RGB", (60, 20), "black")
    half.paste("red", (0, 0, 20, 20))
    cropped, squashed, boxed = (object_pictures([half], fit, 60)[0] for fit in condition.FITS)
    red, black, white = (255, 0, 0), (0, 0, 0), (255, 255, 255)
    assert cropped.getpixel((2, 30)) == black  # the left third is cut off
    assert squashed.getpixel((2, 2)) == red and squashed.getpixel((50, 2)) == black
    assert boxed.getpixel((2, 2)) == white and boxed.getpixel((2, 30)) == red


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_slender_objects_keep_a_pixel(fit):
    for size in ((1, 3000), (3000, 1)):
        (picture,) = object_pictures([Image.new("RGB", size, "black")], fit)
        assert picture.size == (224, 224) and picture.getextrema()[0][0] == 0


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    assert object_pictures([clear])[0].getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("size", [(1, 1), (7, 3)])
def test_an_object_that_shows_nothing_is_refused(size):
    with pytest.raises(ValueError, match=f"at least 8 pixels .* got {size[0]}x{size[1]}"):
        object_pictures([Image.new("RGB", size)])


def test_another_fit_or_scale_is_refused():
    with pytest.raises(ValueError, match="Expected a fit of crop, squash, letterbox, got 'stretch'"):
        object_pictures([WIDE], "stretch")
    with pytest.raises(ValueError, match="Expected a scale of as published, as trained, got 'half'"):
        object_pixels([WIDE], "half")


def test_a_seed_gives_the_same_queries_and_more_of_them_begin_alike():
    assert torch.equal(queries(7, 3, 48), queries(7, 3, 48))
    assert torch.equal(queries(7, 3, 48)[:1], queries(7, 1, 48))
    assert not torch.equal(queries(8, 1, 48), queries(7, 1, 48))
    many = queries(2**64 - 1, 40, 48)
    assert many.shape == (40, 77, 48) and abs(many.mean()) < 0.01 and abs(many.std() - 1) < 0.01


def test_a_context_follows_from_its_seed_and_not_from_torchs(random_optimizer):
    first = object_context(random_optimizer, FEATURES, 5)
    torch.manual_seed(99)
    assert torch.equal(object_context(random_optimizer, FEATURES, 5), first)
    expected = random_optimizer(FEATURES, queries(5, 1, 48).expand(2, -1, -1))
    torch.testing.assert_close(first, expected)
    assert (object_context(random_optimizer, FEATURES, 6) - first).abs().max() > 1e-3


def test_the_context_is_the_mean_over_its_queries(random_optimizer):
    found = object_context(random_optimizer, FEATURES, 5, 4)
    each = [random_optimizer(FEATURES, query.expand(2, -1, -1)) for query in queries(5, 4, 48)]
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)


def test_variance_falls_with_the_number_of_queries(random_optimizer):
    def variance(count):
        contexts = [object_context(random_optimizer, FEATURES, seed, count) for seed in range(24)]
        return torch.stack(contexts).var(0).mean().item()

    assert 0.7 < 16 * variance(16) / variance(1) < 1.4


def test_the_legacy_variant_has_one_context():
    torch.manual_seed(1)
    legacy = LegacyEmbeddingOptimizer(32, 48, input_tokens=9)
    found = object_context(legacy, FEATURES, 1, 8)
    assert torch.equal(found, legacy(FEATURES)) and torch.equal(found, object_context(legacy, FEATURES, 2))


def test_the_null_context_is_zeros_or_that_of_the_blank_picture(random_optimizer):
    assert torch.equal(null_context(random_optimizer, "zeros", None, 5), torch.zeros(1, 77, 48))
    blank = null_context(random_optimizer, "blank picture", FEATURES[:1], 5, 2)
    assert torch.equal(blank, object_context(random_optimizer, FEATURES[:1], 5, 2))
    with pytest.raises(ValueError, match="got 'blank picture' with no tokens"):
        null_context(random_optimizer, "blank picture", None, 5)
    with pytest.raises(ValueError, match="got 'ones' with no tokens"):
        null_context(random_optimizer, "ones", None, 5)


@pytest.mark.golden_keys(TINY, r"train\.\w+(\.\d+)?\.loss")
def test_a_training_step_is_the_published_one(golden, optimizer, unet, vae, key):
    """Contexts, dropping, noise and loss, with the gradients that reach the optimizer."""
    run = key.removesuffix("loss")
    shared, io = golden.below(TINY, "train."), golden.below(TINY, run)
    context = optimizer(shared["object_last_hidden_state"], io["query_object"])
    scene = vae.encode(shared["original"]).latent_dist.mode()
    if "random_p" in io:
        null = optimizer(shared["blank_last_hidden_state"].expand(len(context), -1, -1), io["query_blank"])
        rate = number_in(run.removesuffix("."), "drop")
        context, scene = drop_conditions(context, null, scene, io["random_p"], rate)
    assert_equal(context, io["encoder_hidden_states"])
    assert_equal(scene, io["original_image_embeds"])
    noisy = noise_schedule().add_noise(io["latents_scaled"], io["noise"], io["timesteps"])
    assert_equal(noisy, io["noisy_latents"])
    predicted = unet(torch.cat([noisy, scene], dim=1), io["timesteps"], context).sample
    assert_equal(predicted, io["model_pred"])
    loss = torch.nn.functional.mse_loss(predicted, io["noise"])
    assert_equal(loss, io["loss"])
    loss.backward()
    for name in [name for name in io if name.startswith("grad.")]:
        assert_equal(optimizer.get_parameter(name.removeprefix("grad.")).grad, io[name])


def test_dropping_takes_the_object_the_scene_or_both():
    chances = torch.tensor([0.0, 0.09, 0.1, 0.19, 0.2, 0.29, 0.3, 0.9])
    context, scene = torch.ones(8, 77, 4), torch.ones(8, 4, 2, 2)
    dropped = drop_conditions(context, torch.full((1, 77, 4), 5.0), scene, chances, 0.1)
    assert dropped.context[:, 0, 0].tolist() == [5, 5, 5, 5, 1, 1, 1, 1]
    assert dropped.scene[:, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    nothing = drop_conditions(context, torch.zeros(1, 77, 4), scene, chances, 0.0)
    assert torch.equal(nothing.context, context) and torch.equal(nothing.scene, scene)
