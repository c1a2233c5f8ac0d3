"""The Embedding Optimizer in all its published variants, against the published implementation."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer, LegacyEmbeddingOptimizer
from tests.golden import assert_equal

MINE = {"embedding_optimizer": 4, "two_layer_embedding_optimizer": 2}
FEATURES = torch.linspace(-1, 1, 2 * 9 * 32).reshape(2, 9, 32)
LATER = ("mlp_fc3", "mlp_fc4")
QUERY = torch.linspace(-2, 2, 2 * 77 * 48).sin().reshape(2, 77, 48)


@torch.no_grad()
@pytest.mark.golden_keys("object_insertion_tiny_io", r"eo\.output\d*")
def test_the_context_is_the_published_one(golden, optimizer, key):
    io = golden.tensors("object_insertion_tiny_io")
    query = io[key.replace("output", "query")]
    assert_equal(optimizer(io["eo.input"], query), io[key])


@torch.no_grad()
def test_each_stage_is_the_published_one(golden, optimizer):
    io = golden.below("object_insertion_tiny_io", "eo.")
    projected = optimizer.projection_layer(io["input"])
    assert_equal(projected, io["after_projection"])
    assert_equal(optimizer.attention_pooling(io["query"], projected), io["after_attention"])


@torch.no_grad()
def test_the_older_variant_ends_after_two_layers(golden, optimizer_state):
    io, config = golden.below("object_insertion_tiny_io", "eo."), golden.facts("object_insertion_tiny_config")
    sizes = config["embedding_optimizer"]
    older = EmbeddingOptimizer(sizes["input_dim"], sizes["output_dim"], 2, sizes["num_heads"])
    older.load_state_dict({key: value for key, value in optimizer_state.items() if not key.startswith(LATER)})
    assert_equal(older(io["input"], io["query"]), io["output_2layer"])


@torch.no_grad()
def test_the_legacy_variant_needs_no_query(golden, legacy_state):
    io = golden.below("object_insertion_tiny_io", "legacy.")
    legacy = LegacyEmbeddingOptimizer(io["input"].shape[-1], io["output"].shape[-1], io["input"].shape[1])
    legacy.load_state_dict(legacy_state)
    assert_equal(legacy(io["input"]), io["output"])
    assert torch.equal(legacy(io["input"], io["output"]), legacy(io["input"]))


@pytest.mark.parametrize("name", MINE)
def test_the_keys_are_those_of_the_published_files(golden, name):
    with torch.device("meta"):
        state = EmbeddingOptimizer(num_layers=MINE[name]).state_dict()
    assert_keys(golden, name, state)


def test_the_keys_of_the_legacy_variant_are_those_of_the_published_file(golden):
    state = LegacyEmbeddingOptimizer(device="meta").state_dict()
    assert_keys(golden, "legacy_embedding_optimizer", state)


def assert_keys(golden, name, state):
    listed = golden.facts("object_insertion_full_keys")
    assert {key: list(value.shape) for key, value in state.items()} == listed[name]
    count = sum(value.numel() for value in state.values())
    assert count == listed["params"].get(name, count)


@torch.no_grad()
def test_several_queries_joined_are_answered_one_by_one():
    torch.manual_seed(0)
    optimizer = EmbeddingOptimizer(32, 48)
    joined = optimizer(FEATURES, torch.cat([QUERY, -QUERY], dim=1))
    apart = torch.cat([optimizer(FEATURES, QUERY), optimizer(FEATURES, -QUERY)], dim=1)
    torch.testing.assert_close(joined, apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("features, query, message", [
    (torch.ones(2, 9, 31), QUERY, r"features of the shape \[B, N, 32\], got \[2, 9, 31\]"),
    (torch.ones(9, 32), QUERY, r"features of the shape \[B, N, 32\], got \[9, 32\]"),
    (FEATURES, torch.ones(2, 77, 768), r"a query of the shape \[B, N, 48\], got \[2, 77, 768\]"),
])
def test_other_widths_are_refused(features, query, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingOptimizer(32, 48)(features, query)


def test_the_legacy_variant_refuses_another_number_of_tokens():
    with pytest.raises(ValueError, match="Expected 257 CLIP tokens of a picture, got 50"):
        LegacyEmbeddingOptimizer(32, 48)(torch.ones(1, 50, 32))


def test_another_namespace_gives_all_the_layers():
    class Linear(nn.Linear):
        pass

    for kind, count in ((EmbeddingOptimizer, 6), (LegacyEmbeddingOptimizer, 4)):
        module = kind(32, 48, operations=SimpleNamespace(Linear=Linear))
        layers = [each for each in module.modules() if isinstance(each, nn.Linear)]
        assert len(layers) == count and all(type(each) is Linear for each in layers)


def test_weights_in_half_precision_take_features_in_it():
    optimizer = EmbeddingOptimizer(32, 48, dtype=torch.bfloat16)
    assert optimizer(FEATURES.bfloat16(), QUERY.bfloat16()).dtype is torch.bfloat16
