"""LoRA key layouts and their scales, what can be wrong with a file, and strengths of blocks."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.files.lora import (
    convert_lora,
    modules,
    read_lora,
    split_lora,
    unsound,
    with_alphas,
)
from pit.files.lora_blocks import parse_block_strengths
from pit.files.lora_parts import GLORA, LOHA, PAIR
from pit.files.weights import WeightFileError
from tests.frugal import frugally

PATH = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
NAME = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"
DOWN, UP = torch.randn(4, 8), torch.randn(16, 4)


@pytest.fixture
def published(golden) -> dict[str, Tensor]:
    """All keys of the published file, with tensors that take no memory."""
    keys = golden.facts("ip_lora_full_keys")
    shapes = keys["keys"] | keys["extra_keys_with_lora_on_ip_adapter"]
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def test_the_published_file_becomes_the_layout_of_the_stock_loader(golden, published):
    converted = convert_lora(published)
    assert len(converted) == len(published)
    assert all(key.startswith("lora_unet_") and key.endswith((".lora_down.weight", ".lora_up.weight"))
               for key in converted)
    lora, keys = split_lora(converted), golden.facts("ip_lora_full_keys")
    assert len(modules(lora.unet)) == keys["num_tensors"] / 2
    assert len(modules(lora.adapter)) == len(keys["extra_keys_with_lora_on_ip_adapter"]) / 2
    assert not lora.elsewhere


LAYOUTS = {
    "diffusers": (f"unet.{PATH}.lora.down.weight", f"unet.{PATH}.lora.up.weight"),
    "diffusers without unet": (f"{PATH}.lora.down.weight", f"{PATH}.lora.up.weight"),
    "PEFT": (f"base_model.model.{PATH}.lora_A.weight", f"base_model.model.{PATH}.lora_B.weight"),
    "PEFT in diffusers": (f"unet.{PATH}.lora_A.weight", f"unet.{PATH}.lora_B.weight"),
    "PEFT with its adapter's name": (
        f"unet.base_model.model.{PATH}.lora_A.default.weight",
        f"unet.base_model.model.{PATH}.lora_B.default.weight",
    ),
    "linear layers": (
        f"unet.{PATH}.lora_linear_layer.down.weight", f"unet.{PATH}.lora_linear_layer.up.weight",
    ),
    "processors of 2023": tuple(
        "unet." + PATH.replace("to_out.0", f"processor.to_out_lora.{half}.weight") for half in ("down", "up")
    ),
    "kohya": (f"{NAME}.lora_down.weight", f"{NAME}.lora_up.weight"),
    "kohya with PEFT's factors": (f"{NAME}.lora_A.weight", f"{NAME}.lora_B.weight"),
    "factors that are no modules": (f"unet.{PATH}.lora_A", f"unet.{PATH}.lora_B"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same(layout):
    down, up = LAYOUTS[layout]
    converted = convert_lora({down: DOWN, up: UP})
    assert converted.keys() == {f"{NAME}.lora_down.weight", f"{NAME}.lora_up.weight"}
    assert converted[f"{NAME}.lora_down.weight"] is DOWN
    assert convert_lora(converted) == converted


@pytest.mark.parametrize("module", ["conv_in", "conv_out"])
@pytest.mark.parametrize("before", ["", "unet.", "base_model.model.", "module.unet."])
def test_a_layer_at_the_top_of_the_unet_is_known(before, module):
    converted = convert_lora({f"{before}{module}.lora_A.weight": DOWN, f"{before}{module}.alpha": UP})
    assert converted.keys() == {f"lora_unet_{module}.lora_down.weight", f"lora_unet_{module}.alpha"}


def test_names_of_the_original_layout_and_keys_of_other_kinds_stay():
    module = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    assert convert_lora({f"{module}.lora_A.weight": DOWN}).keys() == {f"{module}.lora_down.weight"}
    assert convert_lora({f"model.{module}.lora_A.weight": DOWN}).keys() == {f"{module}.lora_down.weight"}
    for key in ("transformer.single_blocks.0.attn.to_q.lora_A.weight", "text_encoder.x.lora_A.weight"):
        assert convert_lora({key: DOWN}).keys() == {key.replace("lora_A", "lora_down")}
    assert convert_lora({"lora_unet_x.hada_w1_a": DOWN}).keys() == {"lora_unet_x.hada_w1_a"}


def test_alpha_goes_with_its_module():
    converted = convert_lora({f"unet.{PATH}.alpha": torch.tensor(2.0)})
    assert converted == {f"{NAME}.alpha": torch.tensor(2.0)}


def scales(settings: dict, rank: int = 4) -> dict[str, float]:
    state = {f"{NAME}.lora_down.weight": torch.zeros(rank, 8), f"{NAME}.lora_up.weight": torch.zeros(8, rank)}
    scaled = with_alphas(state, settings, {NAME: PATH})
    return {key: value.item() for key, value in scaled.items() if value.ndim == 0}


def test_scales_come_from_the_settings_of_peft():
    assert scales({"lora_alpha": 8}) == {f"{NAME}.alpha": 8.0}
    assert scales({"lora_alpha": 4}) == {}
    assert scales({"lora_alpha": 8, "alpha_pattern": {"attn1.to_out.0": 2}}) == {f"{NAME}.alpha": 2.0}
    assert scales({"lora_alpha": 8, "alpha_pattern": {"attn2.to_out.0": 2}}) == {f"{NAME}.alpha": 8.0}
    assert scales({"lora_alpha": 8, "use_rslora": True}) == {f"{NAME}.alpha": pytest.approx(16.0)}
    assert scales({}) == {}


@pytest.mark.parametrize(("patterns", "expected"), [
    ({"^down_blocks.1.x.attn1.to_q": 16}, 16.0), ({r"attn1\.to_q$": 16}, 16.0),
    ({"to_q": 2, "attn1.to_q": 16}, 2.0), ({"attn1.to_q": 16, "to_q": 2}, 16.0), ({"q": 16}, 8.0),
    ({"attn2.to_q": 16}, 8.0), ({"^attn1.to_q": 16}, 8.0),
])
def test_patterns_match_as_in_peft(tmp_path, patterns, expected):
    """The first that is the end of the path, from a dot on; with ^ it is the whole path."""
    path = "down_blocks.1.x.attn1.to_q"
    found = [alpha for each, alpha in patterns.items() if re.match(rf"(.*\.)?({each})$", path)]
    assert [*found, 8.0][0] == expected  # PEFT's own rule
    settings = json.dumps({"lora_alpha": 8, "alpha_pattern": patterns})
    state = {f"unet.{path}.lora_A.weight": DOWN, f"unet.{path}.lora_B.weight": UP}
    save_file(state, tmp_path / "x.safetensors", {"lora_adapter_metadata": settings})
    lora = read_lora(tmp_path / "x.safetensors").unet
    assert [value.item() for key, value in lora.items() if key.endswith(".alpha")] == [expected]


@pytest.mark.parametrize("pattern", [r"attn\d.to_q", "(a+)+", "to_[qk]", ".*to_q"])
def test_patterns_that_are_expressions_are_refused(tmp_path, pattern):
    settings = json.dumps({"alpha_pattern": {pattern: 16}})
    state = {f"unet.{PATH}.lora_A.weight": DOWN}
    save_file(state, tmp_path / "x.safetensors", {"lora_adapter_metadata": settings})
    with pytest.raises(WeightFileError, match="expected ends of paths in PEFT's alpha_pattern"):
        read_lora(tmp_path / "x.safetensors")


@pytest.mark.parametrize("patterns", [[[1, 2]], "to_q", 3])
def test_patterns_of_another_form_are_refused(tmp_path, patterns):
    settings = json.dumps({"alpha_pattern": patterns})
    state = {f"unet.{PATH}.lora_A.weight": DOWN}
    save_file(state, tmp_path / "x.safetensors", {"lora_adapter_metadata": settings})
    with pytest.raises(WeightFileError, match="PEFT's settings"):
        read_lora(tmp_path / "x.safetensors")


def test_the_alpha_of_peft_reaches_loha():
    parts = {"hada_w1_a": 16, "hada_w1_b": 4, "hada_w2_a": 16, "hada_w2_b": 4}
    state = {f"{NAME}.{part}": torch.ones(rows, 4) for part, rows in parts.items()}
    assert with_alphas(state, {"alpha": 16, "r": 4})[f"{NAME}.alpha"] == 16.0


def test_an_alpha_of_the_file_outweighs_the_settings():
    state = {f"{NAME}.lora_down.weight": DOWN, f"{NAME}.alpha": torch.tensor(1.0)}
    assert with_alphas(state, {"lora_alpha": 8})[f"{NAME}.alpha"] == 1.0


def test_text_encoders_and_the_unknown_are_set_apart():
    lora = split_lora({
        f"{NAME}.lora_down.weight": DOWN, f"{NAME}.lora_up.weight": UP,
        "lora_te1_text_model_x.lora_down.weight": DOWN, "text_encoder_2.y.lora_up.weight": UP,
        "lora_unet_z.unheard_of": DOWN,
    })
    assert modules(lora.unet) == [NAME]
    assert lora.elsewhere == ("lora_te1_text_model_x", "text_encoder_2.y", "lora_unet_z.unheard_of")


@pytest.mark.parametrize(("down", "up", "phrase"), [
    (DOWN, None, "its lora_down.weight and without its lora_up.weight"),
    (None, UP, "its lora_up.weight and without its lora_down.weight"),
    (DOWN, torch.randn(16, 3), "parts that do not fit: lora_down.weight [4, 8], lora_up.weight [16, 3]"),
    (torch.randn(4), UP, "a lora_down.weight of the shape [4]"),
    (DOWN, torch.randn(16, 4, 3, 3), "a lora_up.weight of the shape [16, 4, 3, 3]"),
    (DOWN * math.nan, UP, "NaN or infinite values in its lora_down.weight"),
    (DOWN, UP * math.inf, "NaN or infinite values in its lora_up.weight"),
    (DOWN.to(torch.complex64), UP, "numbers of the type torch.complex64"),
    (DOWN.int(), UP, "numbers of the type torch.int32"),
    (torch.zeros(0, 8), torch.zeros(16, 0), "an empty lora_down.weight"),
])
def test_unsound_factors_are_named(down, up, phrase):
    halves = {"down": down, "up": up}
    state = {f"{NAME}.lora_{half}.weight": tensor for half, tensor in halves.items() if tensor is not None}
    (found,) = unsound(state)
    assert found.startswith(NAME)
    assert phrase in found


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf])
def test_an_alpha_that_is_not_finite_is_named(alpha):
    state = {f"{NAME}.lora_down.weight": DOWN, f"{NAME}.lora_up.weight": UP}
    state[f"{NAME}.alpha"] = torch.tensor(alpha)
    assert list(unsound(state)) == [f"{NAME} with NaN or infinite values in its alpha"]


@pytest.mark.parametrize(("alpha", "phrase"), [
    (torch.tensor(1j), "numbers of the type torch.complex64 in its alpha"),
    (torch.zeros(0), "an empty alpha"), (torch.ones(2), "2 numbers as its alpha"),
])
def test_an_alpha_that_is_no_number_is_named(alpha, phrase):
    state = {f"{NAME}.lora_down.weight": DOWN, f"{NAME}.lora_up.weight": UP, f"{NAME}.alpha": alpha}
    assert list(unsound(state)) == [f"{NAME} with {phrase}"]


@pytest.mark.parametrize("parts", [
    ["hada_w1_a", "hada_w1_b", "hada_w2_a"], ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1"],
    ["lokr_w1"], ["lokr_w1_a", "lokr_w2"], ["lokr_w1", "lokr_w2_b"], ["a1.weight", "a2.weight", "b1.weight"],
    ["rescale"], ["b_norm"], ["dora_scale"], ["dora_scale", "diff"], ["lora_magnitude_vector"],
    ["lora_up.weight", "lora_mid.weight"], ["reshape_weight"],
])
def test_parts_without_what_belongs_to_them_are_named(parts):
    found, = unsound({f"{NAME}.{part}": torch.ones(4, 4) for part in parts})
    assert found.startswith(f"{NAME} with its ") and " and without its " in found


@pytest.mark.parametrize("parts", [
    ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"], ["lokr_w1", "lokr_w2", "dora_scale"],
    ["lokr_w1_a", "lokr_w1_b", "lokr_w2"], ["lokr_w1", "lokr_w2_a", "lokr_w2_b", "lokr_t2"],
    ["a1.weight", "a2.weight", "b1.weight", "b2.weight"], ["oft_blocks", "rescale"], ["diff", "diff_b"],
    ["w_norm", "b_norm"], ["set_weight"], ["lora_down.weight", "lora_up.weight", "lora_mid.weight"],
    ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"],
])
def test_every_kind_is_whole_with_its_parts(parts):
    four = {"lokr_t2", "lora_mid.weight", "hada_t1", "hada_t2"}
    ends = {"oft_blocks": [4]} | dict.fromkeys(four, [3, 3])
    assert list(unsound({f"{NAME}.{part}": torch.ones(4, 4, *ends.get(part, [])) for part in parts})) == []


@pytest.mark.parametrize("parts", [
    [*PAIR, "diff"], [*PAIR, *LOHA], [*LOHA, "lokr_w1", "lokr_w2"], [*GLORA, "set_weight"],
    ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2"], ["lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"],
    ["w_norm", "diff"], ["w_norm", "b_norm", "diff_b"], [*PAIR, "dora_scale", "lora_magnitude_vector"],
    ["oft_blocks", "dora_scale"], ["oft_blocks", *PAIR],
])
def test_two_kinds_in_one_module_are_named(parts):
    found, = unsound({f"{NAME}.{part}": torch.ones(4, 4) for part in parts})
    named = re.fullmatch(rf"{NAME} with both its (\S+) and its (\S+)", found)
    assert named and {*named.groups()} <= {*parts}


FACTORS = {"lora_A.weight": DOWN, "lora_B.weight": UP}
TWICE = {
    "two adapters of PEFT": ("unet.{}.lora_A.default.weight", "unet.{}.lora_A.other.weight"),
    "a named adapter and another": ("unet.{}.lora_A.weight", "unet.{}.lora_A.other.weight"),
    "two magnitudes of PEFT": (
        "unet.{}.lora_magnitude_vector.default.weight", "unet.{}.lora_magnitude_vector.other"),
    "two prefixes": ("unet.{}.lora_A.weight", "base_model.model.{}.lora_A.weight"),
    "a prefix and none": ("{}.lora_B.weight", "_orig_mod.{}.lora_B.weight"),
    "PEFT and diffusers": ("unet.{}.lora_A.weight", "unet.{}.lora.down.weight"),
    "diffusers and kohya": ("unet.{}.lora.up.weight", "lora_unet_{}.lora_up.weight"),
    "the processors of 2023": ("unet.{}.processor.to_out_lora.up.weight", "unet.{}.to_out.0.lora.up.weight"),
    "two alphas": ("unet.{}.alpha", "lora_unet_{}.alpha"),
    "two magnitudes": ("unet.{}.dora_scale", "lora_unet_{}.dora_scale"),
    "two of an unknown kind": ("te1_{}.lora_A.weight", "te1_{}.lora_down.weight"),
    "numbers of an adapter": ("ip_adapter.1.to_k_ip.lora_A.weight", "unet.1.to_k_ip.lora_down.weight"),
    "adapters of PEFT for other modules": ("unet.{}.lora_A.default.weight", "unet.x.lora_A.other.weight"),
}


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("order", [1, -1])
def test_a_tensor_that_is_there_twice_is_refused_with_both_keys(tmp_path, kind, order):
    path = PATH.removesuffix(".to_out.0") if "2023" in kind else PATH
    keys = [key.format(path.replace(".", "_") if key.startswith("lora_") else path) for key in TWICE[kind]]
    state = {key: DOWN for key in keys[::order]}
    with pytest.raises(ValueError, match="each of its tensors once, got both") as caught:
        convert_lora(state)
    assert all(repr(key)[:100] in str(caught.value) for key in keys)
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(WeightFileError) as caught:
        read_lora(tmp_path / "x.safetensors")
    assert str(caught.value).startswith(f"{tmp_path / 'x.safetensors'}: expected a single LoRA")
    assert all(repr(key)[:100] in str(caught.value) for key in keys)


def test_one_adapter_of_peft_with_a_name_is_read(tmp_path):
    parts = {
        "lora_A.mine.weight": DOWN, "lora_B.mine.weight": UP, "lora_magnitude_vector.mine": torch.ones(16),
    }
    save_file({f"unet.{PATH}.{part}": tensor for part, tensor in parts.items()}, tmp_path / "x.safetensors")
    assert [key.removeprefix(NAME) for key in read_lora(tmp_path / "x.safetensors").unet] == [
        ".lora_down.weight", ".lora_up.weight", ".lora_magnitude_vector",
    ]


LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
PROJECTIONS = {
    f"lora_unet_{LAYER.replace('.', '_')}_to_k_ip": [
        f"unet.{LAYER}.to_k_ip", f"{LAYER}.to_k_ip", f"unet.{LAYER}.processor.to_k_ip",
        f"base_model.model.{LAYER}.processor.to_k_ip.0",
        f"lora_unet_{LAYER.replace('.', '_')}_processor_to_k_ip",
        f"lora_unet_{LAYER.replace('.', '_')}_processor_to_k_ip_0",
    ],
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k_ip": [
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k_ip",
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k_ip",
    ],
    "lycoris_x_to_k_ip": ["lycoris_x_to_k_ip"],
    "ip_adapter.7.to_k_ip": [
        "ip_adapter.7.to_k_ip", "7.to_k_ip", "module.7.to_k_ip", "adapter_modules.7.to_k_ip",
        "base_model.model.ip_adapter.7.to_k_ip", "lora_unet_ip_adapter_7_to_k_ip",
        "lora_ip_adapter_7_to_k_ip", "lycoris_adapter_modules_7_to_k_ip", "unet.adapter_modules.7.to_k_ip.0",
    ],
}


@pytest.mark.parametrize("name, path", [(name, path) for name in PROJECTIONS for path in PROJECTIONS[name]])
@pytest.mark.parametrize("halves", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
def test_every_name_of_the_projections_of_an_adapter_is_known(tmp_path, name, path, halves):
    tensors = {f"{half}.weight": tensor for half, tensor in zip(halves, (DOWN, UP), strict=True)}
    save_file({f"{path}.{part}": value for part, value in tensors.items()}, tmp_path / "x.safetensors")
    lora = read_lora(tmp_path / "x.safetensors")
    assert modules(lora.adapter) == [name] and not lora.unet and not lora.elsewhere


def test_the_projections_of_a_second_adapter_are_not_taken_for_the_first():
    for path in (f"unet.{LAYER}.processor.to_k_ip.1", "ip_adapter.1.to_q_ip", "image_proj.1.to_k_ipx"):
        assert not split_lora(convert_lora({f"{path}.lora_A.weight": DOWN})).adapter


WRAPPERS = ["unet.", "_orig_mod.", "module.", "model.", "state_dict.", "base_model.model."]


@pytest.mark.parametrize("first", WRAPPERS)
@pytest.mark.parametrize("second", WRAPPERS)
def test_what_tools_put_in_front_is_taken_away_in_any_order(first, second):
    for key in (f"{PATH}.lora_A.weight", f"{NAME}.lora_down.weight"):
        assert list(convert_lora({f"{first}{second}{key}": DOWN})) == [f"{NAME}.lora_down.weight"]


def test_a_pattern_for_every_module_of_a_large_file_takes_no_time():
    names = [f"lora_unet_down_blocks_{i}_x" for i in range(5000)]
    state = {f"{name}.lora_down.weight": DOWN for name in names}
    patterns = {f"down_blocks.{i}.x": i for i in range(5000)}
    paths = {name: f"down_blocks.{i}.x" for i, name in enumerate(names)}
    with frugally():
        scaled = with_alphas(state, {"lora_alpha": 8, "alpha_pattern": patterns}, paths)
    assert all(scaled[f"{name}.alpha"] == i for i, name in enumerate(names) if i != 4)  # 4 is the rank


def test_sound_factors_are_not_complained_of():
    convolution = {"x.lora_down.weight": torch.randn(4, 8, 3, 3), "x.lora_up.weight": torch.randn(8, 4, 1, 1)}
    linear = {f"{NAME}.lora_down.weight": DOWN, f"{NAME}.lora_up.weight": UP}
    assert not list(unsound(linear | convolution))


def test_the_published_factors_are_not_complained_of(published):
    assert not list(unsound(convert_lora(published)))


def test_strengths_of_blocks():
    strengths = parse_block_strengths("in=0.5, in4 = 0.25; mid=0\nout0-2=2")
    path = "diffusion_model.{}.1.transformer_blocks.0.attn1.to_q.weight"
    expected = {
        "input_blocks.4": 0.25, "input_blocks.5": 0.5, "middle_block": 0.0, "output_blocks.0": 2.0,
        "output_blocks.2": 2.0, "output_blocks.3": 1.0,
    }
    assert {block: strengths.of(path.format(block)) for block in expected} == expected
    assert strengths.of("diffusion_model.time_embed.0.weight") == 1.0
    assert parse_block_strengths("").of(path.format("middle_block")) == 1.0


@pytest.mark.parametrize("text", ["in", "in4", "block=1", "mid1=1", "in=nan", "in=1e999", "in4=a", "in-3=1"])
def test_what_is_not_a_strength_of_a_block_is_refused(text):
    with pytest.raises(ValueError, match=f"Expected strengths of blocks .*, got '{text}'"):
        parse_block_strengths(text)
