"""All weights of the pack are in ComfyUI's hands: loaded when needed, and gone when it frees them."""

import weakref

import pytest
import torch


@pytest.fixture
def management(inside):
    management = inside.comfy("model_management")
    management.unload_all_models()
    yield management
    management.unload_all_models()


def loaded(management):
    return sorted(type(model.model.model).__name__ for model in management.current_loaded_models)


def test_each_step_loads_what_it_needs_and_freeing_unloads_it(inside, management):
    clip_vision, ip_adapter, prior = inside.tiny.tiny_clip_vision(), inside.ip_adapter(), inside.prior()
    model = inside.tiny.tiny_sdxl()
    assert loaded(management) == []
    with torch.inference_mode():
        parts = inside.nodes("parts").EncodeParts.execute(
            clip_vision, ip_adapter, {"part0": torch.rand(1, 8, 8, 3)}, "centred", 0, 0.0, False, 3).args[0]
        assert loaded(management) == ["CLIPVisionModelProjection", "Resampler"]
        management.unload_all_models()
        node = inside.nodes("prior").SamplePrior
        tokens = node.execute(prior, parts, 0, 2, 2, 2.0, "euler", 0.6).args[0]
        assert loaded(management) == ["IPPrior"]
        management.unload_all_models()
        render(inside, inside.apply(model, ip_adapter, tokens))
    assert loaded(management) == ["ImageCrossAttention", "SDXL"]
    management.unload_all_models()
    assert loaded(management) == []


def render(inside, model):
    sampler = inside.comfy("sample")
    latent = torch.zeros(2, 4, 8, 8)
    positive, negative = inside.tiny.conditioning(2), inside.tiny.conditioning(3)
    return sampler.sample(model, latent + 1, 2, 5.0, "euler", "normal", positive, negative, latent)


def test_tokens_go_with_the_model_and_come_back(inside):
    """The meta device stands in for a GPU: what is there has no values to lose."""
    tokens = inside.tokens(1)
    patched = inside.apply(inside.tiny.tiny_sdxl(), inside.ip_adapter(), tokens)
    replaced = patched.model_options["transformer_options"]["patches_replace"]["attn2"]
    applied, = {patch.applied for patch in replaced.values()}
    patched.model_patches_to(torch.device("meta"))
    assert applied.tokens.device.type == applied.uncond.device.type == "meta"
    patched.model_patches_to(torch.float16)
    assert applied.tokens.dtype == torch.float32
    patched.model_patches_to(torch.device("cpu"))
    assert applied.tokens is tokens.values
    assert applied.uncond is tokens.uncond


def test_nothing_keeps_the_weights_when_their_users_are_gone(inside, management):
    ip_adapter = inside.ip_adapter()
    with torch.inference_mode():
        patched = inside.apply(inside.tiny.tiny_sdxl(), ip_adapter, inside.tokens(2))
        render(inside, patched)
    attention = weakref.ref(ip_adapter.cross_attention.model)
    del patched, ip_adapter
    management.unload_all_models()
    management.cleanup_models_gc()
    assert attention() is None
