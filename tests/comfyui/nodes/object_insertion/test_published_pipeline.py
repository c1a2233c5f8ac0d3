"""The published pipeline, with ComfyUI's own UNet, guider and sampler in place of diffusers'."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.comfyui.nodes.object_insertion.shared import engine, nodes
from tests.golden import assert_equal

TINY = "object_insertion_tiny_io"


class Multiple(float):
    """A factor of widths that are whole numbers, such as 1.5."""

    def __mul__(self, width):
        return int(float(self) * width)

    __rmul__ = __mul__


@pytest.fixture(scope="module")
def golden_model(inside, golden):
    """The UNet of the golden data in ComfyUI, which knows no groups but 32 in its norms."""
    config = golden.facts("object_insertion_tiny_config")["unet"]
    ops = inside.comfy("ops").disable_weight_init
    widths, groups = config["block_out_channels"], config["norm_num_groups"]

    class GroupNorm(ops.GroupNorm):
        def __init__(self, num_groups, *arguments, **options):
            super().__init__(groups, *arguments, **options)

    class Kind(inside.tiny.TinyInstruct):
        unet_extra_config = {"num_heads": config["attention_head_dim"], "num_head_channels": -1}
        custom_operations = type("Operations", (ops,), {"GroupNorm": GroupNorm})

    blocks = config["layers_per_block"]
    depths = [int("CrossAttn" in kind) for kind in config["down_block_types"]]
    sizes = {
        "num_res_blocks": [blocks] * len(widths),
        "transformer_depth": [depth for depth in depths for _ in range(blocks)],
        "transformer_depth_output": [depth for depth in depths for _ in range(blocks + 1)],
        "model_channels": widths[0], "channel_mult": [Multiple(width / widths[0]) for width in widths],
        "context_dim": config["cross_attention_dim"],
    }
    model = inside.tiny.tiny_instruct(kind=Kind, **sizes)
    state = golden.below("object_insertion_tiny_state", "unet.")
    model.model.diffusion_model.load_state_dict(engine(inside, "unet_layout").in_comfyui_layout(state))
    return model


@pytest.mark.golden_keys(TINY, r"pipe\..+\.scales")
def test_comfyui_arrives_at_the_published_latents(inside, golden, golden_model, key):
    io, image = golden.below(TINY, key.removesuffix("scales")), golden.below(TINY, "img.")
    vae = SimpleNamespace(
        latent_channels=4, spacial_compression_encode=lambda: 8,
        encode=lambda pixels: image["source_latent_mode_unscaled"],
    )
    scene, context = image["source_uint8"][None].float() / 255, io["context"][:1]
    contexts = [[context, {}]], [[torch.zeros_like(context), {}]]
    samplers, noise = inside.comfy("samplers"), iter(io["step_noise"])
    ancestral = samplers.ksampler("euler_ancestral", {"noise_sampler": lambda *sigmas: next(noise)})
    with torch.inference_mode():
        insert = nodes(inside, "insert").InsertObject.execute
        guider, latent, *_ = insert(golden_model, vae, scene, *contexts, *io["scales"].tolist())
        steps = len(io["timesteps"])
        sigmas = nodes(inside, "models").InsertionSchedule.execute(golden_model, steps).args[0]
        assert_equal(sigmas[:-1], io["sigmas"])
        found = guider.sample(io["init_noise_unit"], latent["samples"], ancestral, sigmas, disable_pbar=True)
    assert_equal(golden_model.model.process_latent_in(found), io["latents"][-1])


def test_a_scene_reaches_the_vae_as_published(golden, vae):
    image = golden.below(TINY, "img.")
    seen = vae.process_input(image["source_uint8"][None].float() / 255)
    assert_equal(seen.movedim(-1, 1), image["source_tensor"])
