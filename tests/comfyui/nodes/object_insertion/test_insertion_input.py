"""What cannot be used is refused in one sentence, before anything is computed."""
from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.nodes.object_insertion.shared import covering, folder_of, nodes, pictures
from tests.comfyui.nodes.published import write_optimizer


def test_a_bias_of_another_model_is_refused(inside, model):
    save_file({"conv_in.bias": torch.ones(320)}, folder_of(inside) / "wide.safetensors")
    with pytest.raises(ValueError, match="bias of 32 values in wide.safetensors, .* got 320"):
        nodes(inside, "models").PatchBias.execute(model, "wide.safetensors")


def other_models(inside):
    models, tiny = inside.comfy("supported_models"), inside.tiny
    plain = type("Plain", (models.SD15,), {"unet_config": tiny.INSTRUCT_UNET})
    return {
        "a text-to-image model with 4": partial(tiny.tiny_instruct, kind=plain, in_channels=4),
        "an inpainting model with 9": partial(tiny.tiny_instruct, kind=plain, in_channels=9),
        "another model with 8": partial(tiny.tiny_instruct, kind=plain),
        "got SDXL": tiny.tiny_sdxl,
        "got Namespace": lambda: SimpleNamespace(model=Namespace(diffusion_model=object())),
    }


class Namespace(SimpleNamespace):
    pass


@pytest.mark.parametrize("message", [
    "a text-to-image model with 4", "an inpainting model with 9", "another model with 8", "got SDXL",
    "got Namespace",
])
def test_another_model_is_refused_by_every_node(inside, insert, message):
    other = other_models(inside)[message]()
    save_file({"conv_in.bias": torch.ones(32)}, folder_of(inside) / "any.safetensors")
    for name, call in {
        "Insert Object": lambda: insert(model=other),
        "Insertion Schedule": lambda: nodes(inside, "models").InsertionSchedule.execute(other, 4),
        "Patch InstructPix2Pix Bias": lambda: nodes(inside, "models").PatchBias.execute(
            other, "any.safetensors"),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} expected an InstructPix2Pix.*{message}"):
            call()


def test_contexts_of_another_width_are_refused(inside, insert, encode):
    path = write_optimizer(inside.base / "models" / "object_insertion" / "wide.pt", output_dim=64)
    wide = nodes(inside, "encoding").load_optimizer(path, path.name)[0]
    with pytest.raises(ValueError, match="contexts of width 48, as the model reads them, got 64"):
        insert(contexts=encode(optimizer=wide))
    with pytest.raises(ValueError, match="contexts of width 48, as the model reads them, got 64"):
        insert(contexts=(encode()[0], encode(optimizer=wide)[1]))


def test_no_contexts_are_refused(insert, encode):
    with pytest.raises(ValueError, match="expected contexts, got none"):
        insert(contexts=([], encode()[1]))


def test_an_image_encoder_of_another_kind_is_refused(encode):
    """Some of them have no patches, and pictures of any size."""
    other = SimpleNamespace(model_type="siglip2_vision_model", config={"hidden_size": 64}, image_size=-1)
    with pytest.raises(ValueError, match="got a siglip2_vision_model of width 64"):
        encode(clip_vision=other)


def test_another_image_encoder_is_refused(inside, encode):
    message = "width 64 .* got a clip_vision_model of width 128. Copy .*vit-large"
    with pytest.raises(ValueError, match=message):
        encode(clip_vision=inside.tiny.tiny_clip_vision(width=128))


def test_the_encoder_for_larger_pictures_is_refused(inside):
    """ViT-L/14 at 336 pixels has the published width, and 577 tokens."""
    check, types = nodes(inside, "encoding").check_encoder, nodes(inside, "types")
    config = {"hidden_size": 1024, "patch_size": 14}
    optimizer = types.ManagedOptimizer("a.pt", SimpleNamespace(model=SimpleNamespace(input_dim=1024)))
    at = partial(SimpleNamespace, model_type="clip_vision_model", config=config)
    check(at(image_size=224), optimizer)
    with pytest.raises(ValueError, match="of width 1024 .* got one with 577 tokens for 257"):
        check(at(image_size=336), optimizer)


def test_another_vae_is_refused(insert):
    vae = SimpleNamespace(latent_channels=16, spacial_compression_encode=lambda: 8)
    with pytest.raises(ValueError, match="with 4 latent channels, got one with 16"):
        insert(vae=vae)


@pytest.mark.parametrize("settings, message", [
    ({"image": torch.rand(1, 1, 1, 3)}, "object of at least 8 pixels along its longer side, got 1x1"),
    ({"image": pictures(), "mask": torch.zeros(1, 64, 64)}, "got an empty one"),
    ({"image": pictures(), "mask": covering(20, 20, (4, 4, 5, 5))}, "at least 8 pixels .* got 1x1"),
    ({"image": pictures(), "mask": torch.ones(1, 10, 20)}, "a mask of the picture's size 20x20, got 20x10"),
    ({"image": pictures() / 0}, "got NaN or infinity"),
    ({"image": pictures(), "mask": torch.full((1, 20, 20), float("nan"))}, "got NaN or infinity"),
])
def test_an_object_that_shows_nothing_is_refused(encode, settings, message):
    with pytest.raises(ValueError, match=message):
        encode(**settings)


@pytest.mark.parametrize("settings, message", [
    ({"scene": pictures(24, 32) / 0}, "got NaN or infinity"),
    ({"region": torch.zeros(1, 64, 64)}, "got an empty mask"),
    ({"region": torch.ones(1, 32, 24)}, "mask of the scene's size 32x24"),
])
def test_a_scene_or_region_that_cannot_be_used_is_refused(insert, settings, message):
    with pytest.raises(ValueError, match=message):
        insert(**settings)


def test_an_encoder_that_gives_nan_is_told(inside, encode):
    broken = inside.tiny.tiny_clip_vision()
    for weight in broken.model.parameters():
        weight.data[...] = float("nan")
    with pytest.raises(FloatingPointError, match="finite contexts from a.pt, got NaN"):
        encode(clip_vision=broken)


def test_nan_in_a_file_is_told_with_its_count(inside, tmp_path):
    load = nodes(inside, "encoding").load_optimizer
    path = write_optimizer(tmp_path / "b.pt")
    state = torch.load(path, weights_only=True)
    state["mlp_fc1.bias"][:3] = float("nan")
    torch.save(state, path)
    with pytest.raises(ValueError, match="got 3 NaN in 1 of 14 tensors: mlp_fc1.bias.*nan_as_zero"):
        load(path, "b.pt")
    assert load(path, "b.pt", nan_as_zero=True)[1].endswith("3 of its values were NaN, and are 0 now")
