"""Operators of every published layout load with their statistics; what is incomplete is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pit import load_operator
from pit.files.known import what_is
from pit.files.published import file_kinds, published_files
from pit.files.weights import read_state
from pit.piece_it_together.prior_files import read_prior
from pit.pops.files import read_operator, save_operator
from pit.pops.modes import MODES, mode_in
from pit.pops.prior import PriorTransformer
from tests.frugal import frugally
from tests.golden import assert_equal
from tests.pops.test_prior import seeded
from tests.pops.tiny import (
    CONFIG,
    HEADS,
    STATISTICS,
    WIDTH,
    random_operator,
    without_statistics,
    write_base,
    write_operator,
)
from tests.refusal import assert_refused

WHOLE = random_operator().state_dict()
WEIGHTS = without_statistics(WHOLE)
BASE = random_operator(1).state_dict()


def assert_is(operator: PriorTransformer, seed: int = 0, statistics: dict = BASE) -> None:
    """It is the operator of this seed with these statistics, ready for use."""
    x, t, condition = seeded(1, 1, WIDTH), torch.tensor([300]), seeded(2, 1, 3, WIDTH)
    with torch.no_grad():
        assert_equal(operator(x, t, condition), random_operator(seed)(x, t, condition))
    for key in STATISTICS:
        assert torch.equal(getattr(operator, key), statistics[key])
    assert not operator.training


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("ending", ["ckpt", "pt", "pth", "bin", "safetensors"])
def test_a_published_operator_over_its_base_gives_the_published_prediction(golden, tmp_path, ending, prefix):
    heads = golden.facts("pops_tiny_config")["prior"]["num_attention_heads"]
    state, _ = read_state(golden.path("pops_tiny_operator.pth"))
    path = tmp_path / f"learned_prior.{ending}"
    state = {f"{prefix}{key}": value for key, value in state.items()}
    (save_file if ending == "safetensors" else torch.save)(state, path)
    operator = load_operator(path, golden.path("pops_tiny_base_state.safetensors"), num_heads=heads)
    io, whole = golden.below("pops_tiny_io", "fwd.both."), golden.tensors("pops_tiny_state")
    found = operator.state_dict()
    assert found.keys() == whole.keys() and all(torch.equal(found[key], whole[key]) for key in whole)
    assert_equal(operator(io["x"], io["t"], io["hidden"]), io["pred"])


def test_the_published_operator_is_the_base_without_two_tensors(golden):
    facts = golden.facts("pops_full_keys")
    rest = [key for key in facts["prior"] if key not in facts["operator_checkpoint_missing"]]
    state = {key: torch.empty(facts["prior"][key], device="meta") for key in rest}
    assert sum(value.numel() for value in state.values()) == facts["params"]["operator_checkpoint"]
    kinds = {kind.name: kind for kind in file_kinds()}
    assert kinds["pops_operator"].is_one(state) and not kinds["pops_operator"].is_one(facts["prior"])
    assert kinds["kandinsky_prior"].is_one(facts["prior"])


@pytest.mark.parametrize("inner", ["", "prior", "prior/diffusion_pytorch_model.safetensors"])
def test_a_base_is_a_file_or_either_folder_of_diffusers(tmp_path, inner):
    operator = write_operator(tmp_path / "learned_prior.pth")
    assert_is(load_operator(operator, write_base(tmp_path / "base") / inner))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"])
def test_a_base_is_found_under_the_other_names_of_diffusers(tmp_path, name):
    write_base(tmp_path / "base")
    (tmp_path / "base/prior/diffusion_pytorch_model.safetensors").unlink()
    (torch.save if name.endswith("bin") else save_file)(BASE, tmp_path / "base/prior" / name)
    assert_is(load_operator(write_operator(tmp_path / "learned_prior.pth"), tmp_path / "base"))


def test_the_prior_of_a_base_is_an_operator_itself(tmp_path):
    assert_is(load_operator(write_base(tmp_path / "base")), seed=1)


def test_statistics_of_its_own_come_before_those_of_a_base(tmp_path):
    save_file(WHOLE, tmp_path / "operator.safetensors")
    base = write_base(tmp_path / "base")
    assert_is(load_operator(tmp_path / "operator.safetensors", base), statistics=WHOLE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_and_statistics_are_float32(tmp_path, dtype):
    save_file({key: value.to(dtype) for key, value in WEIGHTS.items()}, tmp_path / "half.safetensors")
    operator = load_operator(tmp_path / "half.safetensors", write_base(tmp_path / "base"))
    kinds = {key: value.dtype for key, value in operator.state_dict().items()}
    assert {kinds.pop(key) for key in STATISTICS} == {torch.float32} and set(kinds.values()) == {dtype}
    with torch.no_grad():
        found = operator(seeded(1, 1, WIDTH).to(dtype), torch.tensor([3]), seeded(2, 1, 3, WIDTH).to(dtype))
    assert found.isfinite().all()


def test_mixed_types_become_float32(tmp_path):
    half = {key: value.half() if value.ndim == 2 else value for key, value in WHOLE.items()}
    save_file(half, tmp_path / "mixed.safetensors")
    operator = load_operator(tmp_path / "mixed.safetensors", num_heads=HEADS)
    assert {value.dtype for value in operator.state_dict().values()} == {torch.float32}


def test_float8_becomes_a_type_that_computes(tmp_path):
    state = {key: value.to(torch.float8_e4m3fn) for key, value in WEIGHTS.items()} | {
        key: WHOLE[key] for key in STATISTICS}
    save_file(state, tmp_path / "small.safetensors")
    operator = load_operator(tmp_path / "small.safetensors", num_heads=HEADS)
    assert operator.proj_in.weight.dtype == torch.float16


def test_an_operator_without_a_base_says_what_to_do(tmp_path):
    path = write_operator(tmp_path / "learned_prior.pth")
    assert_refused(
        load_operator, path, "expected the statistics clip_mean and clip_std", "without them",
        "Give the prior of Kandinsky 2.2 as its base", "python -m pit convert --base",
        "python -m pit download kandinsky-prior",
    )


def test_a_base_without_statistics_is_named(tmp_path):
    path, base = write_operator(tmp_path / "a.pth"), write_operator(tmp_path / "b.pth", 1)
    message = "b.pth: expected a base with the statistics"
    assert_refused(load_operator, path, message, "another operator", base=base)
    save_file({key: BASE[key] for key in BASE if key != "clip_std"}, tmp_path / "half.safetensors")
    assert_refused(load_operator, path, "got a prior without clip_std", base=tmp_path / "half.safetensors")


@pytest.mark.parametrize("change, message", [
    ({"clip_mean": torch.zeros(1, 9)}, "clip_mean of the shape [1, 24], as wide as the operator, got [1, 9]"),
    ({"clip_std": torch.ones(WIDTH)}, "expected clip_std of the shape [1, 24]"),
    ({"clip_mean": torch.full((1, WIDTH), float("nan"))}, "expected finite numbers in clip_mean"),
    ({"clip_std": torch.ones(1, WIDTH).long()}, "expected floating-point weights in clip_std"),
    ({"clip_std": torch.zeros(1, WIDTH)}, "expected deviations above 0 in clip_std"),
    ({"clip_std": -torch.ones(1, WIDTH)}, "expected deviations above 0 in clip_std"),
])
def test_statistics_that_cannot_be_right_are_refused(tmp_path, change, message):
    save_file(BASE | change, tmp_path / "base.safetensors")
    path = write_operator(tmp_path / "a.pth")
    assert_refused(load_operator, path, "base.safetensors", message, base=tmp_path / "base.safetensors")


def test_a_lone_statistic_is_an_error(tmp_path):
    save_file(WEIGHTS | {"clip_mean": WHOLE["clip_mean"]}, tmp_path / "a.safetensors")
    base = write_base(tmp_path / "base")
    assert_refused(load_operator, tmp_path / "a.safetensors", "got only clip_mean", base=base)


@pytest.mark.parametrize("key", [
    "transformer_blocks.1.attn1.to_q.weight", "prd_embedding", "proj_in.weight", "positional_embedding",
    "transformer_blocks.0.ff.net.0.proj.weight", "embedding_proj.bias", "norm_out.bias",
])
def test_a_missing_tensor_is_never_filled_up(tmp_path, key):
    save_file({name: WHOLE[name] for name in WHOLE if name != key}, tmp_path / "a.safetensors")
    base = write_base(tmp_path / "base")
    assert_refused(load_operator, tmp_path / "a.safetensors", key, base=base, num_heads=HEADS)


@pytest.mark.parametrize("change, message", [
    ({"more": torch.zeros(2)}, "1 unknown: more"),
    ({"transformer_blocks.0.norm2.weight": torch.zeros(32)}, "1 unknown: transformer_blocks.0.norm2.weight"),
    ({"transformer_blocks.99.norm1.weight": torch.zeros(32)}, "unknown: transformer_blocks.99.norm1.weight"),
    ({"prd_embedding": torch.zeros(1, 2, 32)}, "expected prd_embedding of shape [1, 1, 32]"),
    ({"positional_embedding": torch.zeros(1, 4, 32)}, "a positional_embedding of the shape [1, 81, 32]"),
    ({"positional_embedding": torch.zeros(81, 32)}, "a positional_embedding of the shape [1, 81, 32]"),
    ({"proj_in.weight": torch.zeros(32)}, "expected proj_in.weight to be a matrix"),
    ({"norm_out.bias": torch.full((32,), float("inf"))}, "expected finite numbers in norm_out.bias"),
    ({"norm_out.bias": torch.zeros(32).int()}, "expected floating-point weights in norm_out.bias"),
])
def test_a_damaged_operator_is_refused(tmp_path, change, message):
    save_file(WHOLE | change, tmp_path / "a.safetensors")
    assert_refused(load_operator, tmp_path / "a.safetensors", message, num_heads=HEADS)


def test_a_prefix_of_some_keys_is_not_half_a_load(tmp_path):
    mixed = {f"module.{key}" if "to_k" in key else key: WEIGHTS[key] for key in WEIGHTS}
    save_file(mixed, tmp_path / "a.safetensors")
    base = write_base(tmp_path / "base")
    assert_refused(
        load_operator, tmp_path / "a.safetensors", "6 missing", "6 unknown: module.",
        base=base, num_heads=HEADS,
    )


def test_other_files_are_named(tmp_path):
    save_file({"x_embedder.weight": torch.zeros(2, 2)}, tmp_path / "prior.safetensors")
    assert_refused(
        load_operator, tmp_path / "prior.safetensors", "expected a pOps operator, got an IP-Prior")
    path = write_operator(tmp_path / "a.pth")
    message = "expected a base with the statistics of a pOps operator, got an IP-Prior"
    assert_refused(load_operator, path, message, base=tmp_path / "prior.safetensors")
    assert_refused(load_operator, path, "no such file", base=tmp_path / "nothing.safetensors")
    (tmp_path / "empty").mkdir()
    assert_refused(load_operator, path, "folder with the prior of Kandinsky 2.2", base=tmp_path / "empty")


@pytest.mark.parametrize("explicit, metadata, beside, of_base, heads", [
    (2, 4, 4, 4, 2), (None, 2, 4, 4, 2), (None, None, 2, 4, 2), (None, None, None, 2, 2),
    (None, None, None, None, 32),
])
def test_the_head_count_comes_from_the_first_that_tells_it(
    tmp_path, explicit, metadata, beside, of_base, heads
):
    notes = None if metadata is None else {"num_heads": str(metadata)}
    save_file(WEIGHTS, tmp_path / "a.safetensors", notes)
    base = write_base(tmp_path / "base")
    for folder, count in ((tmp_path, beside), (base / "prior", of_base)):
        config = {} if count is None else {"num_attention_heads": count}
        (folder / "config.json").write_text(json.dumps(config))
    assert read_operator(tmp_path / "a.safetensors", base, explicit).config.num_heads == heads


@pytest.mark.parametrize("text, message", [
    ("{", "config.json: expected readable JSON, got an error"),
    ('{"num_attention_heads": "4"}', "expected a whole number from 1 as num_attention_heads, got '4'"),
    ('{"num_attention_heads": true}', "as num_attention_heads, got True"),
    ('{"num_attention_heads": 0}', "as num_attention_heads, got 0"),
    ('{"num_attention_heads": 5}', "splits into 5 heads, got a width of 32"),
])
def test_a_damaged_configuration_is_an_error(tmp_path, text, message):
    save_file(WHOLE, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text(text)
    assert_refused(load_operator, tmp_path / "a.safetensors", message)


def test_a_merged_file_needs_no_base(tmp_path):
    file = read_operator(write_operator(tmp_path / "a.pth"), write_base(tmp_path / "base"))
    assert file.config == CONFIG
    save_operator(tmp_path / "merged.safetensors", file)
    assert_is(load_operator(tmp_path / "merged.safetensors"))
    assert read_state(tmp_path / "merged.safetensors")[1]["num_heads"] == str(HEADS)


def test_a_file_may_say_which_guidance_suits_it(tmp_path):
    file = read_operator(write_operator(tmp_path / "a.pth"), write_base(tmp_path / "base"))
    assert file.guidance is None
    save_operator(tmp_path / "b.safetensors", replace(file, guidance=2.5))
    assert read_operator(tmp_path / "b.safetensors").guidance == 2.5


@pytest.mark.parametrize("text", ["much", "nan", "inf", ""])
def test_a_guidance_that_is_no_number_is_refused(tmp_path, text):
    save_file(WHOLE, tmp_path / "a.safetensors", {"guidance": text})
    assert_refused(load_operator, tmp_path / "a.safetensors", "expected a number as its guidance, got ")


@pytest.mark.parametrize("path, mode", [
    ("texturing/learned_prior.pth", "texture"), ("pops\\scene\\learned_prior.pth", "scene"),
    ("my_texture_v2.safetensors", "texture"), ("union/learned_prior.pth", "union"),
    ("scene_and_union.pth", ""), ("learned_prior.pth", ""), ("scenes/instruct.pth", "instruct"),
    ("Clothes.pth", "clothes"),
])
def test_a_path_tells_what_an_operator_is_for(path, mode):
    assert mode_in(path) == mode and (not mode or mode in MODES)


def test_a_file_in_a_folder_of_its_own_is_not_mistaken(tmp_path: Path):
    """A config.json of another model beside the file, without a head count, is passed over."""
    save_file(WHOLE, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text('["other"]')
    assert read_operator(tmp_path / "a.safetensors").config.num_heads == 32


def test_the_published_files_have_the_names_that_people_type():
    names = {file.name for file in published_files()}
    assert names >= {
        "pops-texturing", "pops-union", "pops-scene", "pops-instruct", "kandinsky-prior", "kandinsky-decoder",
        "ip-adapter-bigg", "clip-vision-bigg",
    }
    for file in published_files():
        if file.name.startswith("pops-"):
            assert mode_in(file.target) in MODES and file.path.endswith("/learned_prior.pth")


def test_forged_sizes_are_refused_before_they_cost_anything(tmp_path):
    layers = {f"transformer_blocks.{number}.norm1.weight": torch.ones(1) for number in range(800)}
    slots = {"positional_embedding": torch.ones(1, 900_000, 2)}
    for change, message in ((layers, "expected at most 128 layers, got"), (slots, "shape [1, 900000, 32]")):
        save_file(WHOLE | change, tmp_path / "a.safetensors")
        with frugally():
            assert_refused(load_operator, tmp_path / "a.safetensors", message, num_heads=HEADS)


def test_what_belongs_to_pops_is_named_where_something_else_is_expected(golden, tmp_path):
    whole, decoder = golden.facts("pops_full_keys"), golden.facts("kandinsky22_decoder_full_keys")
    operator = {key: 0 for key in whole["prior"] if key not in STATISTICS}
    assert what_is(operator) == ("a pOps operator", "It goes into models/pops, for Load pOps Operator.")
    assert what_is(whole["prior"])[0].startswith("a prior of Kandinsky 2.2")
    for part in ("unet", "movq"):
        assert what_is(decoder[part])[0] == "a decoder of Kandinsky 2.2"
    assert what_is({"image_embeds": 0, "negative_image_embeds": 0})[0] == "an image embedding"
    # The encoders of Kandinsky are what ComfyUI takes them for.
    assert what_is(whole["image_encoder"])[0] == "a CLIP vision encoder"
    assert what_is(whole["text_encoder"])[0] == "a text encoder"
    assert what_is({"quantize.embedding.weight": 0, "decoder.conv_in.weight": 0})[0] == "a VAE"
    path = write_operator(tmp_path / "a.pth")
    assert_refused(read_prior, path, "expected an IP-Prior, got a pOps operator", "for Load pOps Operator")
