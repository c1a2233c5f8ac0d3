"""Every golden case of Parts2Whole: masks, references, decoupled attention, pose, guidance, a whole run."""

import pytest
import torch
from diffusers import DDIMScheduler

from pit.parts2whole.attention import IMAGE_TOKENS
from pit.parts2whole.sample import Conditions, guided, predicted_noise
from pit.parts2whole.schedule import SCHEDULER, alphas_cumprod, sigmas
from tests.parts2whole.cases import CASES, Case, assert_close, golden_case, words_in


def predicted(case: Case, published, denoiser) -> torch.Tensor:
    """The output of a case by our two passes."""
    pose, rows = case.given.get("pose"), len(case.given["sample"])
    if pose is not None:
        pose = published.pose_guider(pose)
    references = case.keys_and_values(published.reference_unet, denoiser)
    reads = [row >= case.positive for row in range(rows)]
    noisy, timestep = case.given["sample"], case.facts["t"]
    with torch.no_grad():
        return denoiser(noisy, timestep, case.text, case.images, pose, references, reads)


@pytest.mark.golden_keys("parts2whole_tiny_io", CASES)
def test_a_case_equals_the_published_output(golden, published, denoiser, key):
    case = golden_case(golden, key.partition("/")[0])
    assert_close(predicted(case, published, denoiser), case.given["out"], case.tolerance)


@pytest.mark.golden_keys("parts2whole_tiny_io", r"[a-z0-9_]+/bank/.+/0")
def test_what_the_reference_unet_writes_is_what_the_published_one_writes(golden, published, key):
    name, block = key.removesuffix("/0").split("/bank/")
    written = golden_case(golden, name).written(published.reference_unet)
    assert_close(written[block].features, golden.tensors("parts2whole_tiny_io")[key])


def test_all_blocks_are_paired_in_the_published_order(golden, denoiser, published):
    order = golden.facts("parts2whole_tiny_config")["block_order_read"]
    assert list(denoiser.unet.attn_processors)[::2] == [f"{block}.attn1.processor" for block in order]
    written = golden_case(golden, "one").written(published.reference_unet)
    assert set(written) == set(order)


def test_the_pose_guider_equals_the_published_one(golden, published):
    given = golden.below("parts2whole_tiny_io", "pose/")
    assert_close(published.pose_guider(given["in"]), given["out"])


@pytest.mark.golden_keys("parts2whole_tiny_io", "dc/out.*")
def test_decoupled_attention_equals_the_published_one(golden, denoiser, key):
    given = golden.below("parts2whole_tiny_io", "dc/")
    module = golden.facts("parts2whole_tiny_config")["dc_module"].removeprefix("unet.")
    text, images = (each.clone() for each in given["encoder"].tensor_split([words_in(golden)], 1))
    if key.endswith("padded"):
        images[0] = 0
        images[1, 2:] = 0
    assert images.shape[1] == IMAGE_TOKENS
    attention = denoiser.unet.get_submodule(module)
    assert_close(attention(given["hidden"], text, images=images), given[key.removeprefix("dc/")])


@pytest.mark.golden_keys("parts2whole_tiny_io", r"[a-z0-9_]+/guided_eps")
def test_a_step_with_guidance_equals_the_published_one(golden, published, denoiser, key):
    case = golden_case(golden, key.partition("/")[0])
    noise = guided(*predicted(case, published, denoiser).chunk(2), 3.5)
    assert_close(noise, case.given["guided_eps"], case.tolerance)
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(50)
    before = scheduler.step(noise, case.facts["t"], case.given["sample"][:1]).prev_sample
    assert_close(before, case.given["ddim_prev"], case.tolerance)


def test_the_schedule_is_the_published_one(golden):
    given = golden.below("parts2whole_tiny_io", "sched/")
    assert_close(alphas_cumprod(), given["alphas_cumprod"])
    assert_close((1 / (1 + sigmas().square())), given["alphas_cumprod"])
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(len(given["timesteps50"]))
    assert scheduler.timesteps.tolist() == given["timesteps50"].tolist()


def test_a_whole_run_equals_the_published_one(golden, published, denoiser):
    steps = golden.facts("parts2whole_tiny_config")["e2e_findings"]["maskdict"]["steps"]
    run = golden.below("parts2whole_tiny_e2e", "e2e/")
    # The run was made with the published wiring, whose features are rounded to float16.
    count = sum(key.endswith("_text") for key in run)
    case = Case({"refs": count, "cfg": True, "bank_dtype": "torch.float16"}, run, words_in(golden))
    assert not case.images[0].any()  # row 0 is the negative prompt, without image tokens
    references = case.keys_and_values(published.reference_unet, denoiser)
    given = Conditions(case.text[1:], case.text[:1], case.images[1:], run["pose_fea"][1:], references)
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(len(steps))
    assert scheduler.timesteps.tolist() == steps
    latents = run["latents_init"]
    for number, timestep in enumerate(steps):
        assert_close(latents, run[f"step{number}_in"][:1], case.tolerance)
        noise = predicted_noise(denoiser, latents, timestep, given, 3.5)
        latents = scheduler.step(noise, timestep, latents).prev_sample
    assert_close(latents, run["latents_final"], case.tolerance)
