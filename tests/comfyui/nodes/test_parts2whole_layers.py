"""The functions of the engine as patches of ComfyUI's own UNet: the same numbers as the published code."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pit.parts2whole.attention import (
    attend_decoupled,
    attend_with_references,
    keys_and_values,
    padded_image_tokens,
)
from pit.parts2whole.files import Parts2Whole
from pit.parts2whole.references import reading
from pit.parts2whole.unets import blocks_of
from pit.unet import AttentionLayer, attention_layers
from tests.parts2whole.cases import CASES, Case, assert_close, golden_case, load_wide, write_published


@pytest.fixture(scope="module")
def published(golden, tmp_path_factory) -> Parts2Whole:
    return load_wide(write_published(golden, tmp_path_factory.mktemp("parts2whole") / "published"))


@pytest.fixture(scope="module")
def unet(inside, golden, published):
    """The golden denoising UNet in ComfyUI's class."""
    config = golden.facts("parts2whole_tiny_config")["unet"]
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    ways = (config[f"{way}_block_types"] for way in ("down", "up"))
    down, up = ([int(each.startswith("CrossAttn")) for each in types] for types in ways)
    sizes = {
        "image_size": 32, "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None,
        "in_channels": 4, "out_channels": 4, "model_channels": widths[0],
        "num_res_blocks": [layers] * len(widths), "channel_mult": [width // widths[0] for width in widths],
        "transformer_depth": [depth for depth in down for _ in range(layers)], "transformer_depth_middle": 1,
        "transformer_depth_output": [depth for depth in up[::-1] for _ in range(layers + 1)],
        "use_linear_in_transformer": False,
        "context_dim": config["cross_attention_dim"], "num_heads": config["attention_head_dim"],
        "use_temporal_attention": False, "use_temporal_resblock": False,
    }
    openai, operations = inside.comfy("ldm.modules.diffusionmodules.openaimodel"), inside.comfy("ops")
    unet = openai.UNetModel(**sizes, dtype=torch.float32, operations=operations.manual_cast)
    names = inside.comfy("utils").unet_to_diffusers(sizes)
    state = {names[key]: value for key, value in published.unet.state_dict().items()}
    unet.load_state_dict(state)
    return unet.eval()


def patched_options(inside, case: Case, unet: nn.Module, published, attention_name: str) -> dict:
    """What a node will put into the options of a model call."""
    attention_module = inside.comfy("ldm.modules.attention")
    attention = getattr(attention_module, attention_name)
    layers, blocks = attention_layers(unet), blocks_of(published.unet)
    tokens = reading(case.written(published.reference_unet)) if case.facts["refs"] else None
    images = padded_image_tokens(case.images)
    reads = [row >= case.positive for row in range(len(case.given["sample"]))]
    patches: dict[str, dict[tuple, object]] = {"attn1": {}, "attn2": {}}

    def own_and_references(layer: AttentionLayer, block: str):
        attn = unet.get_submodule(layer.module.replace("attn2", "attn1"))
        kept = keys_and_values(tokens[block], attn.to_k, attn.to_v)

        def replaced(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
            chosen = partial(attention, attn_precision=options["attn_precision"], transformer_options=options)
            return attend_with_references(q, k, v, options["n_heads"], kept, reads, chosen)

        return replaced

    def words_and_images(number: int):
        def replaced(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
            heads = options["n_heads"]
            return attend_decoupled(published.decoupled[number], q, k, v, images, heads, 1.0, attention)

        return replaced

    for number, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
        key = (layer.block, layer.number, layer.index)
        if tokens is not None:
            patches["attn1"][key] = own_and_references(layer, block)
        patches["attn2"][key] = words_and_images(number)
    options: dict = {"patches_replace": patches}
    if "pose" in case.given:
        pose = published.pose_guider(case.given["pose"])

        def posed(hidden: Tensor, options: dict) -> Tensor:
            return hidden + pose if options["block"] == ("input", 0) else hidden

        options["patches"] = {"input_block_patch": [posed]}
    return options


@pytest.mark.golden_keys("parts2whole_tiny_io", CASES)
@pytest.mark.parametrize("attention", ["attention_pytorch", "attention_sub_quad"])
def test_comfyui_s_unet_gives_the_published_output(inside, golden, unet, published, key, attention):
    case = golden_case(golden, key.partition("/")[0])
    noisy = case.given["sample"]
    times = torch.full((len(noisy),), float(case.facts["t"]))
    with torch.inference_mode():
        options = patched_options(inside, case, unet, published, attention)
        ours = unet(noisy, times, context=case.text, transformer_options=options)
    assert_close(ours, case.given["out"], case.tolerance)


def test_the_schedule_is_the_one_that_comfyui_calls_sqrt_linear(inside):
    from pit.parts2whole.schedule import BETA_END, BETA_START, COMFYUI_NAME, sigmas

    sampling = inside.comfy("model_sampling").ModelSamplingDiscrete()
    sampling._register_schedule(beta_schedule=COMFYUI_NAME, linear_start=BETA_START, linear_end=BETA_END)
    torch.testing.assert_close(sampling.sigmas, sigmas(), rtol=1e-4, atol=1e-5)
