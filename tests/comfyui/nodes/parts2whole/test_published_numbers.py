"""Golden cases through the nodes and ComfyUI's own UNet, guider and sampler: the published numbers."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.comfyui.nodes.parts2whole.shared import encoded_case, golden_pose, nodes
from tests.parts2whole.cases import CASES, ROUNDED_TOLERANCE, Case, assert_close, golden_case, words_in


@pytest.fixture
def unrounded_pose(inside, monkeypatch):
    """Golden poses are no pictures of 8 bits, and have the size already."""
    reading = nodes(inside, "reading")
    monkeypatch.setattr(reading, "pose_picture", lambda image, width, height: image.movedim(-1, 1))


@pytest.mark.golden_keys("parts2whole_tiny_io", CASES)
def test_comfyui_predicts_the_published_noise(inside, golden, applied, parts, sampler, unrounded_pose, key):
    case = golden_case(golden, key.partition("/")[0])
    wiring = nodes(inside, "references").wiring("as trained")
    if case.rounded:
        wiring = replace(wiring, rounded=True)
    references = encoded_case(inside, case, parts, wiring)
    model = applied(references, golden_pose(inside, parts, case.given.get("pose")))
    rows = slice(case.positive, None)
    assert_close(sampler.predicted_noise(model, case, rows), case.given["out"][rows], case.tolerance)


@pytest.mark.golden_keys("parts2whole_tiny_io", r"[a-z0-9_]+/guided_eps")
def test_the_negative_half_is_the_published_one(
    inside, golden, applied, parts, sampler, unrounded_pose, key
):
    case = golden_case(golden, key.partition("/")[0])
    model = applied(encoded_case(inside, case, parts), golden_pose(inside, parts, case.given.get("pose")))
    rows = slice(case.positive)
    # At a guidance of 0, all of the result is that of the negative prompt.
    found = sampler.predicted_noise(model, case, rows, cfg=0.0)
    assert_close(found, case.given["out"][rows])


@pytest.mark.parametrize("end", ["as published", "as ComfyUI's scheduler"])
def test_the_stock_ksampler_arrives_at_the_published_latents(
    inside, golden, applied, parts, monkeypatch, end
):
    facts = golden.facts("parts2whole_tiny_config")["e2e_findings"]["maskdict"]
    run = golden.below("parts2whole_tiny_e2e", "e2e/")
    count = sum(key.endswith("_text") for key in run)
    case = Case({"refs": count, "cfg": True, "bank_dtype": "torch.float16"}, run, words_in(golden))
    # As published, but for the masks: of this run, they came by the one name that the pipeline reads.
    wiring = replace(nodes(inside, "references").wiring("as published"), masks=True)
    references = encoded_case(inside, case, parts, wiring, label=run["ref0_text"][1:])
    monkeypatch.setattr(nodes(inside, "reading"), "features", lambda pose, x: run["pose_fea"][1:])
    model = applied(references, nodes(inside, "types").Pose(torch.zeros(1, 8, 8, 3), 1.0, parts.pose_guider))
    # A prompt that the published pipeline forgets.
    positive, negative = [[torch.randn_like(case.text[1:]), {}]], [[case.text[:1], {}]]
    samplers = inside.comfy("samplers")
    with torch.inference_mode():
        ksampler = samplers.KSampler(
            model, steps=len(facts["steps"]), device=torch.device("cpu"), sampler="ddim",
            scheduler="ddim_uniform", denoise=1.0, model_options=model.model_options,
        )
        times = model.get_model_object("model_sampling").timestep(ksampler.sigmas[:-1])
        assert times.tolist() == facts["steps"]
        sigmas, scale = ksampler.sigmas, torch.tensor(1.0)
        expected = without_noise(run, sigmas[-2])
        if end == "as published":  # whose last step leaves the noise of timestep 0
            sigmas[-1] = model.get_model_object("model_sampling").sigmas[0]
            expected, scale = run["latents_final"], (sigmas[-1]**2 + 1).sqrt()
        found = ksampler.sample(
            run["latents_init"], positive, negative, cfg=3.5, latent_image=run["latents_init"] * 0,
            disable_pbar=True, seed=0, sigmas=sigmas,
        )
        assert_close(model.model.process_latent_in(found) / scale, expected, ROUNDED_TOLERANCE)


def without_noise(run: dict, sigma: torch.Tensor) -> torch.Tensor:
    """The latents that the last step of a published run takes its own for, at the noise of that step."""
    last = max(int(key[len("step")]) for key in run if key.startswith("step"))
    negative, positive = run[f"step{last}_out"].chunk(2)
    noise = negative + 3.5 * (positive - negative)
    return run[f"step{last}_in"][:1] * (sigma**2 + 1).sqrt() - sigma * noise


def test_the_model_has_the_published_schedule(golden, model):
    given = golden.below("parts2whole_tiny_io", "sched/")
    sampling = model.get_model_object("model_sampling")
    assert_close(1 / (1 + sampling.sigmas.square()), given["alphas_cumprod"])
