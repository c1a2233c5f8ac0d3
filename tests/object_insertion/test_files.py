"""Embedding Optimizer files of every variant and layout load; all others are refused by name."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import pit
from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer, LegacyEmbeddingOptimizer
from pit.object_insertion.files import load_embedding_optimizer, read_bias, read_embedding_optimizer
from tests.golden import assert_equal
from tests.refusal import assert_refused

FC2, LATER = "mlp_fc2.weight", ("mlp_fc3", "mlp_fc4")


def random_state(kind=EmbeddingOptimizer, **sizes) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return kind(32, 48, **sizes).state_dict()


STATE, OLDER, LEGACY = random_state(), random_state(num_layers=2), random_state(LegacyEmbeddingOptimizer)


def saved(folder, state, ending="pt"):
    path = folder / f"emb_opt.{ending}"
    (save_file if ending == "safetensors" else torch.save)(state, path)
    return path


def test_the_names_that_others_rely_on():
    assert pit.load_embedding_optimizer is load_embedding_optimizer
    assert pit.EmbeddingOptimizer is EmbeddingOptimizer


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt", "bin", "safetensors"])
def test_a_file_of_every_layout_gives_the_published_context(
    golden, tmp_path, optimizer_state, ending, prefix
):
    io = golden.below("object_insertion_tiny_io", "eo.")
    state = {f"{prefix}{key}": value for key, value in optimizer_state.items()}
    optimizer = load_embedding_optimizer(saved(tmp_path, state, ending))
    assert_equal(optimizer(io["input"], io["query"]), io["output"])
    assert not optimizer.training


@torch.no_grad()
def test_the_older_and_the_legacy_file_give_the_published_contexts(
    golden, tmp_path, optimizer_state, legacy_state
):
    io = golden.tensors("object_insertion_tiny_io")
    older = {key: value for key, value in optimizer_state.items() if not key.startswith(LATER)}
    optimizer = load_embedding_optimizer(saved(tmp_path, older))
    assert_equal(optimizer(io["eo.input"], io["eo.query"]), io["eo.output_2layer"])
    legacy = load_embedding_optimizer(saved(tmp_path, legacy_state))
    assert_equal(legacy(io["legacy.input"], None), io["legacy.output"])


@pytest.mark.parametrize("state, variant, layers", [
    (STATE, "4 layers, with a random query", 4), (OLDER, "2 layers, with a random query", 2),
    (LEGACY, "legacy, without a query", None),
])
def test_the_keys_tell_the_variant(tmp_path, state, variant, layers):
    file = read_embedding_optimizer(saved(tmp_path, state))
    assert file.variant == variant and file.nan == 0 and file.state.keys() == state.keys()
    assert getattr(file.build(device="meta"), "num_layers", None) == layers
    assert all(torch.equal(file.state[key], value) for key, value in state.items())


def test_the_head_count_comes_from_the_metadata_if_it_is_there(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors", {"num_heads": "6"})
    assert load_embedding_optimizer(tmp_path / "a.safetensors").attention_pooling.num_heads == 6
    assert load_embedding_optimizer(saved(tmp_path, STATE)).attention_pooling.num_heads == 8
    save_file(STATE, tmp_path / "b.safetensors", {"num_heads": "7"})
    assert_refused(read_embedding_optimizer, tmp_path / "b.safetensors", "into 7 heads, got 48")


def without(*keys, state=STATE):
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize("state, messages", [
    # What the published loader would fill up with random weights.
    (without("mlp_fc3.weight", "mlp_fc3.bias"), ["2 missing: mlp_fc3.weight, mlp_fc3.bias"]),
    (without("mlp_fc4.weight", "mlp_fc4.bias"), ["2 missing: mlp_fc4"]),
    (without("mlp_fc4.bias"), ["1 missing: mlp_fc4.bias"]),
    (without(FC2, state=OLDER), [f"1 missing: {FC2}"]),
    (without("attention_pooling.in_proj_weight"), ["1 missing: attention_pooling.in_proj_weight"]),
    (without("projection_layer.weight"), ["expected a tensor projection_layer.weight, got none"]),
    (without("fc2.bias", state=LEGACY), ["1 missing: fc2.bias"]),
    (STATE | {"mlp_fc5.weight": torch.ones(48, 48)}, ["1 unknown: mlp_fc5.weight"]),
    (STATE | {"seq_projection.weight": torch.ones(77, 257)}, ["1 unknown: seq_projection.weight"]),
    (STATE | {FC2: torch.ones(48, 47)}, [f"{FC2} of shape [48, 48]", "got [48, 47]"]),
    (STATE | {"projection_layer.weight": torch.ones(48)}, ["to be a matrix, got shape [48]"]),
    (LEGACY | {"seq_projection.weight": torch.ones(64, 257)}, ["to make 77 tokens, got 64"]),
    (STATE | {FC2: torch.full((48, 48), float("inf"))}, [FC2, "NaN or infinite"]),
    (STATE | {FC2: torch.ones(48, 48, dtype=torch.int64)}, [f"floating-point weights in {FC2}"]),
])
def test_an_incomplete_or_damaged_file_is_refused_by_key(tmp_path, state, messages):
    for ending in ("pt", "safetensors"):
        assert_refused(read_embedding_optimizer, saved(tmp_path, state, ending), *messages)
        assert_refused(load_embedding_optimizer, saved(tmp_path, state, ending))


def with_nan(dtype=torch.float32):
    spoiled = {key: value.to(dtype) for key, value in STATE.items()}
    for key, places in ((FC2, [0, 5]), ("mlp_fc4.bias", [7])):
        values = STATE[key].flatten().clone()
        values[places] = float("nan")
        spoiled[key] = values.view_as(STATE[key]).to(dtype)
    return spoiled


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e4m3fn])
def test_nan_is_counted_and_refused_or_read_as_zero(tmp_path, dtype):
    path = saved(tmp_path, with_nan(dtype))
    assert_refused(read_embedding_optimizer, path, f"got 3 NaN in 2 of 14 tensors: {FC2}, mlp_fc4.bias")
    file = read_embedding_optimizer(path, nan_as_zero=True)
    assert file.nan == 3
    assert (file.state[FC2].flatten()[[0, 5]] == 0).all() and file.state["mlp_fc4.bias"][7] == 0
    kept = STATE[FC2].to(dtype).float().flatten()
    assert torch.equal(file.state[FC2].float().flatten()[1:5], kept[1:5])
    assert load_embedding_optimizer(path, nan_as_zero=True).mlp_fc2.weight.isfinite().all()


def test_infinity_is_refused_even_where_nan_is_not(tmp_path):
    path = saved(tmp_path, with_nan() | {"mlp_fc1.bias": torch.full((48,), float("-inf"))})
    assert_refused(read_embedding_optimizer, path, "finite numbers in mlp_fc1.bias", nan_as_zero=True)


@pytest.mark.parametrize("state, what", [
    ({"x_embedder.weight": torch.ones(2, 2)}, "got an IP-Prior"),
    ({"unet.mid_block.attn1.to_q.lora_A.weight": torch.ones(2, 2)}, "got a LoRA"),
    ({"down_blocks.0.resnets.0.conv1.weight": torch.ones(2), "conv_in.bias": torch.ones(2)},
     "got a diffusion model"),
    ({"a": torch.ones(2)}, "got a file of another kind, with the keys a."),
])
def test_other_files_are_named(tmp_path, state, what):
    path = saved(tmp_path, state)
    assert_refused(load_embedding_optimizer, path, "expected an Embedding Optimizer", what)


def test_an_optimizer_in_the_place_of_another_file_is_named(tmp_path):
    for state in (STATE, OLDER, LEGACY):
        message = "got an Embedding Optimizer. It goes into models/object_insertion"
        assert_refused(pit.load_prior, saved(tmp_path, state), message)


@pytest.mark.parametrize("name", [
    "conv_in.bias", "input_blocks.0.0.bias", "model.diffusion_model.input_blocks.0.0.bias",
])
def test_the_bias_of_a_unet_is_found_under_each_of_its_names(tmp_path, name):
    bias = torch.linspace(-1, 1, 32)
    path = saved(tmp_path, {name: bias.half(), "model.diffusion_model.out.2.bias": torch.ones(4)})
    assert torch.equal(read_bias(path), bias.half().float())


@pytest.mark.parametrize("state, message", [
    ({"mlp_fc1.weight": torch.ones(2, 2)}, "expected a UNet or its conv_in.bias, got an Embedding Optimizer"),
    ({"conv_in.bias": torch.ones(2, 2)}, "conv_in.bias of shape [4]"),
    ({"conv_in.bias": torch.tensor([1.0, float("nan")])}, "finite numbers in conv_in.bias"),
    ({"conv_in.bias": torch.ones(0)}, "conv_in.bias of shape [1]"),
])
def test_a_file_without_a_usable_bias_is_refused(tmp_path, state, message):
    assert_refused(read_bias, saved(tmp_path, state), message)
