"""Golden cases through the nodes and ComfyUI's own UNet, guider and sampler: the published numbers."""
from __future__ import annotations

import pytest
import torch

from tests.comfyui.nodes.parts2whole.shared import encoded_case, golden_pose, nodes, prompts
from tests.parts2whole.cases import CASES, Case, assert_close, golden_case, words_in


@pytest.fixture
def unrounded_pose(inside, monkeypatch):
    """Golden poses are no pictures of 8 bits, and have the size already."""
    reading = nodes(inside, "reading")
    monkeypatch.setattr(reading, "pose_picture", lambda image, width, height: image.movedim(-1, 1))


@pytest.mark.golden_keys("parts2whole_tiny_io", CASES)
def test_comfyui_predicts_the_published_noise(inside, golden, applied, parts, sampler, unrounded_pose, key):
    case = golden_case(golden, key.partition("/")[0])
    if case.facts["cfg"]:
        pytest.skip("with guidance: the test below")
    wired = "as trained"
    references = encoded_case(inside, case, parts, wired)
    if case.facts["bank_dtype"] == "torch.float16":
        references = rounded(inside, case, parts)
    model = applied(references, golden_pose(inside, parts, case.given.get("pose")))
    assert_close(sampler.predicted_noise(model, case), case.given["out"])


def rounded(inside, case: Case, parts):
    """References whose features are rounded, as published, but told their own labels and the prompt."""
    published = encoded_case(inside, case, parts, "as published") if case.facts["refs"] else None
    wiring = inside.pack("pit.parts2whole.parts").Wiring(
        own_labels=True, masks=True, all_images=True, rounded=True)
    latents, labels, masks = (case.references(what) for what in ("latents", "text", "mask"))
    with torch.inference_mode():
        tokens = nodes(inside, "references").write(
            parts, latents, labels, masks, wiring, [1.0] * case.facts["refs"])
    return nodes(inside, "types").EncodedReferences(tokens, published.images, published.label, wiring)


@pytest.mark.golden_keys("parts2whole_tiny_io", r"[a-z0-9_]+/ddim_prev")
def test_a_step_with_guidance_is_the_published_one(
    inside, golden, applied, parts, sampler, unrounded_pose, key
):
    case = golden_case(golden, key.partition("/")[0])
    pose = golden_pose(inside, parts, case.given.get("pose"))
    model = applied(encoded_case(inside, case, parts), pose)
    before, after = case.facts["t"], case.facts["t"] - 20
    sigma = model.get_model_object("model_sampling").sigmas[after]
    sigmas = sampler.sigmas(model, [before], float(sigma))
    found = sampler.denoised(model, *prompts(case), case.given["sample"][:1], sigmas, cfg=3.5)
    assert_close(found / (sigma**2 + 1).sqrt(), case.given["ddim_prev"])


def test_the_stock_ksampler_arrives_at_the_published_latents(inside, golden, applied, parts, monkeypatch):
    facts = golden.facts("parts2whole_tiny_config")["e2e_findings"]["maskdict"]
    run = golden.below("parts2whole_tiny_e2e", "e2e/")
    count = sum(key.endswith("_text") for key in run)
    case = Case({"refs": count, "cfg": True, "bank_dtype": "torch.float16"}, run, words_in(golden))
    # As published, but for the masks: of this run, they came by the one name that the pipeline reads.
    kinds = inside.pack("pit.parts2whole.parts")
    wiring = kinds.Wiring(own_labels=False, masks=True, all_images=False, rounded=True)
    monkeypatch.setitem(kinds.WIRINGS, "as published", wiring)
    references = encoded_case(inside, case, parts, "as published", label=run["ref0_text"][1:])
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
        found = ksampler.sample(
            run["latents_init"], positive, negative, cfg=3.5, latent_image=run["latents_init"] * 0,
            disable_pbar=True, seed=0,
        )
        assert_close(model.model.process_latent_in(found), run["latents_final"])


def test_the_model_has_the_published_schedule(golden, model):
    given = golden.below("parts2whole_tiny_io", "sched/")
    sampling = model.get_model_object("model_sampling")
    assert_close(1 / (1 + sampling.sigmas.square()), given["alphas_cumprod"])
