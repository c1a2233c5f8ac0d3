"""From pictures to a picture by stock nodes, with tiny models of ComfyUI's own classes."""
from __future__ import annotations

import importlib

import pytest
import torch

from tests.comfyui.nodes.parts2whole.shared import nodes
from tests.parts2whole.cases import assert_close

HEIGHT, WIDTH = 64, 96


def picture(seed=0, height=HEIGHT, width=WIDTH):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def patched(inside, model, parts, encoders):
    """The model of Apply Parts2Whole for two references and a pose, at half of their size."""
    latent = {"samples": torch.zeros(1, 4, HEIGHT // 8, WIDTH // 8)}
    clip, vae, vision = encoders
    with torch.inference_mode():
        make = nodes(inside, "references").ReferencePart.execute
        references = {
            "reference0": make(picture(1, 128, 80), "face").args[0],
            "reference1": make(picture(2), "shoes", "red boots", torch.ones(1, HEIGHT, WIDTH), 0.5).args[0],
        }
        encoded = nodes(inside, "references").EncodeReferences.execute(
            parts, clip, vae, vision, latent, references, "as trained").args[0]
        pose = nodes(inside, "pose").PoseMap.execute(parts, picture(3), latent, 1.0).args[0]
        return nodes(inside, "apply").ApplyParts2Whole.execute(
            model, parts, encoded, 1.0, 0.0, 1.0, pose).args[0]


def test_the_stock_graph_draws_a_picture_and_a_larger_one(patched, model, encoders):
    stock, (clip, vae, _) = importlib.import_module("nodes"), encoders
    with torch.inference_mode():
        encode, sample = stock.CLIPTextEncode().encode, stock.KSampler().sample
        positive, negative = (encode(clip, text)[0] for text in ("a girl, high quality, realistic", ""))
        given = "euler", "normal", positive, negative
        latent = {"samples": torch.zeros(2, 4, HEIGHT // 8, WIDTH // 8)}
        small = sample(patched, 1, 2, 3.5, *given, latent)[0]
        other = sample(model, 1, 2, 3.5, *given, latent)[0]
        again = sample(patched, 1, 2, 3.5, *given, latent)[0]
        larger = {"samples": torch.nn.functional.interpolate(small["samples"], scale_factor=2)}
        large = sample(patched, 1, 2, 3.5, *given, larger, denoise=0.5)[0]
        image = stock.VAEDecode().decode(vae, large)[0]
    assert torch.equal(small["samples"], again["samples"])
    assert (small["samples"] - other["samples"]).norm() > 0.1
    assert image.shape == (2, 2 * HEIGHT, 2 * WIDTH, 3) and image.isfinite().all()
    with pytest.raises(ValueError, match="Pose Map: Expected a pose of the aspect of the picture, 64x64"):
        sample(patched, 1, 1, 3.5, *given, {"samples": torch.zeros(1, 4, 8, 8)})


def test_a_model_with_another_schedule_gets_that_of_parts2whole(inside, model, monkeypatch):
    monkeypatch.setattr(model.model.model_config, "sampling_settings", {})
    expected = model.get_model_object("model_sampling").sigmas
    scheduled = nodes(inside, "apply").with_schedule(model)
    assert_close(scheduled.get_model_object("model_sampling").sigmas, expected)
    # A node before that has changed the sampling knows what it does.
    changed = model.clone()
    own = type(model.model.model_sampling)(model.model.model_config)
    changed.add_object_patch("model_sampling", own)
    kept = nodes(inside, "apply").with_schedule(changed).get_model_object("model_sampling").sigmas
    assert torch.equal(kept, own.sigmas) and not torch.allclose(kept, expected)


def test_models_of_another_kind_are_named(inside, patched, model, parts):
    apply = nodes(inside, "apply")
    with pytest.raises(ValueError, match="Stable Diffusion 1.5's kind, as tiny has it, got SDXL: 17 "):
        apply.check_model(inside.tiny.tiny_sdxl(), parts)

    class TinySD2(inside.comfy("supported_models").SD20):
        unet_config = inside.tiny.INSTRUCT_UNET | {
            "in_channels": 4, "model_channels": 64, "use_linear_in_transformer": True,
        }

    other = inside.tiny.patcher_of(TinySD2(TinySD2.unet_config), 0, torch.float32)
    with pytest.raises(ValueError, match="got Stable Diffusion 2: .*width 48 instead of 16 of width 24"):
        apply.check_model(other, parts)
    other.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="0 cross-attention layers"):
        apply.check_model(other, parts)
