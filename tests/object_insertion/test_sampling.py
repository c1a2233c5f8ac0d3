"""Guidance and steps of the published pipeline, and its whole loop."""
from __future__ import annotations

import pytest
import torch

from pit.object_insertion.condition import ZEROS, null_context
from pit.object_insertion.sampling import (
    guided,
    is_guided,
    leading_sigmas,
    leading_timesteps,
    scaled_linear_sigmas,
)
from tests.golden import TOLERANCE, assert_equal

TINY = "object_insertion_tiny_io"
GUIDED = 1e-4  # guidance multiplies the difference of branches, and with it what processors round differently
BOTH, SCENE, NEITHER = (torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))


@pytest.mark.golden_keys(TINY, r"sched\.sigmas_\d+")
def test_the_noise_levels_are_the_published_ones(golden, key):
    io, steps = golden.tensors(TINY), int(key.rpartition("_")[2])
    assert torch.equal(leading_timesteps(steps).float(), io[f"sched.timesteps_{steps}"].float())
    assert_equal(leading_sigmas(steps), io[key])
    assert_equal((leading_sigmas(steps)[0] ** 2 + 1).sqrt(), io[f"sched.init_noise_sigma_{steps}"])


@torch.no_grad()
@pytest.mark.golden_keys(TINY, r"pipe\..+\.scales")
def test_the_whole_loop_is_the_published_one(golden, optimizer, unet, vae, key):
    """From the object's CLIP tokens to the picture, with every step in between."""
    io, image = golden.below(TINY, key.removesuffix("scales")), golden.below(TINY, "img.")
    guidance, image_guidance = io["scales"].tolist()
    context = optimizer(image["clip_last_hidden_state"], io["query"])
    scene = vae.encode(image["source_tensor"]).latent_dist.mode()
    assert_equal(scene, image["source_latent_mode_unscaled"])
    contexts, scenes, tolerance = context, scene, TOLERANCE
    if is_guided(guidance, image_guidance):
        tolerance = GUIDED
        null = null_context(optimizer, ZEROS, None, 0)
        contexts = torch.cat([context, null, null])
        scenes = torch.cat([scene, scene, torch.zeros_like(scene)])
    assert_equal(contexts, io["context"])
    steps = len(io["timesteps"])
    timesteps, sigmas = leading_timesteps(steps), leading_sigmas(steps)
    assert_equal(timesteps.float(), io["timesteps"])
    x = io["init_noise_unit"] * (sigmas[0] ** 2 + 1).sqrt()
    for step, (t, sigma, after) in enumerate(zip(timesteps, sigmas, sigmas[1:], strict=False)):
        inputs = torch.cat([(x / (sigma**2 + 1).sqrt()).expand(len(scenes), -1, -1, -1), scenes], dim=1)
        predicted = unet(inputs, t, contexts).sample
        if step == 0:
            assert_equal(inputs, io["unet_in_first"])
            assert_equal(predicted, io["unet_out_first"])
        branches = predicted.chunk(3) if len(predicted) == 3 else [predicted] * 3
        eps = guided(*branches, guidance, image_guidance)
        # As clean latents: the published code gets the noise back from them, where a low level costs digits.
        assert_equal(x - sigma * eps, x - sigma * io["guided_eps"][step], tolerance)
        x = ancestral_step(x, eps, sigma, after, io["step_noise"][step])
        assert_equal(x, io["latents"][step], tolerance)
    picture = vae.decode(x / vae.config.scaling_factor).sample
    assert_equal((picture / 2 + 0.5).clamp(0, 1).movedim(1, -1), io["image"], tolerance)


def ancestral_step(x, eps, sigma, after, noise):
    up = (after**2 * (sigma**2 - after**2) / sigma**2).sqrt()
    down = (after**2 - up**2).sqrt()
    return x + eps * (down - sigma) + up * noise


@pytest.mark.parametrize("steps, first, last", [
    (1, 1, 1), (2, 501, 1), (3, 667, 1), (30, 958, 1), (100, 991, 1), (600, 600, 1), (999, 999, 1),
])
def test_timesteps_are_multiples_from_the_offset_on(steps, first, last):
    timesteps = leading_timesteps(steps)
    assert len(timesteps) == steps and (timesteps[0], timesteps[-1]) == (first, last)
    assert len(set((timesteps[:-1] - timesteps[1:]).tolist())) <= 1
    sigmas = leading_sigmas(steps)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0 and (sigmas[:-1] > sigmas[1:]).all()


def test_a_thousand_steps_repeat_the_last_level_as_published():
    sigmas = leading_sigmas(1000)
    assert sigmas[0] == sigmas[1] == scaled_linear_sigmas()[-1] and len(sigmas) == 1001


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"Expected 1 to 1000 steps, got {steps}"):
        leading_sigmas(steps)


def test_the_levels_may_be_those_of_a_model():
    assert torch.equal(leading_sigmas(2, torch.arange(1000.0)), torch.tensor([501.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"with 1000 noise levels.*got \[10\]"):
        leading_sigmas(2, torch.arange(10.0))


def test_guidance_moves_from_neither_by_the_scene_and_by_the_object():
    found = guided(BOTH, SCENE, NEITHER, 7.0, 1.5)
    torch.testing.assert_close(found, NEITHER + 1.5 * (SCENE - NEITHER) + 7.0 * (BOTH - SCENE))


@pytest.mark.parametrize("guidance, image_guidance", [(1.0, 1.5), (0.0, 1.5), (7.0, 0.9)])
def test_without_guidance_only_the_full_pass_counts(guidance, image_guidance):
    assert not is_guided(guidance, image_guidance)
    assert guided(BOTH, SCENE, NEITHER, guidance, image_guidance) is BOTH
