"""The resampler against the published one, from features and from pixels, and the stamp of its weights."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.files.records import weights_stamp
from pit.ip_adapter.resampler import Resampler
from tests.golden import assert_equal

SIZES = {"dim": 32, "depth": 2, "dim_head": 8, "heads": 4, "embedding_dim": 40, "output_dim": 48}
FEATURES = torch.randn(2, 17, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def golden_resampler(golden) -> Resampler:
    model = Resampler(**golden.facts("pit_tiny_config")["res"])
    model.load_state_dict(golden.below("pit_tiny_state", "image_proj."))
    return model.eval().requires_grad_(False)


@pytest.fixture
def golden_clip(golden) -> CLIPVisionModelWithProjection:
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**golden.facts("pit_tiny_config")["clip"]))
    loaded = model.load_state_dict(golden.below("pit_tiny_clip", "clip."), strict=False)
    assert set(loaded.missing_keys) <= {"vision_model.embeddings.position_ids"} and not loaded.unexpected_keys
    return model.eval().requires_grad_(False)


@pytest.fixture
def io(golden) -> dict[str, Tensor]:
    return golden.below("pit_tiny_clip", "io.")


@pytest.fixture(scope="module")
def resampler() -> Resampler:
    torch.manual_seed(0)
    return Resampler(**SIZES).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def state(resampler) -> dict[str, Tensor]:
    """Weights that half precision holds exactly."""
    return {key: value.half().float() for key, value in resampler.state_dict().items()}


def test_tokens_equal_the_published_ones(golden, golden_resampler):
    io = golden.below("pit_tiny_io", "resampler.")
    assert_equal(golden_resampler(io["features"]), io["tokens"])


@pytest.mark.parametrize("features, tokens", [("features", "tokens"), ("zeros_features", "uncond_tokens")])
def test_tokens_of_clip_features_equal_the_published_ones(golden_resampler, io, features, tokens):
    assert_equal(golden_resampler(io[features]), io[tokens])


@pytest.mark.parametrize("zero, features, tokens", [
    (False, "features", "tokens"), (True, "zeros_features", "uncond_tokens"),
])
def test_the_whole_chain_from_pixels_equals_the_published_one(
    golden_resampler, golden_clip, io, zero, features, tokens
):
    pixels = io["pixel_values"].float()
    pixels = torch.zeros_like(pixels[:1]) if zero else pixels
    states = golden_clip(pixels, output_hidden_states=True).hidden_states
    assert len(states) == io["num_hidden_states"].item()
    assert_equal(states[-2], io[features])
    assert_equal(golden_resampler(states[-2]), io[tokens])


def test_keys_and_shapes_are_the_published_ones(golden):
    published = golden.facts("ip_adapter_plus_sdxl_keys")
    resampler = Resampler(device="meta")
    shapes = {key: list(value.shape) for key, value in resampler.state_dict().items()}
    assert shapes == published["image_proj"]
    assert sum(value.numel() for value in resampler.parameters()) == published["image_proj_params"]


@pytest.mark.parametrize("queries, positions, width", [(4, 1, 24), (16, 257, 8)])
def test_any_number_of_positions_gives_the_queries(queries, positions, width):
    resampler = Resampler(
        dim=16, depth=1, dim_head=4, heads=3, num_queries=queries, embedding_dim=12, output_dim=width
    )
    assert resampler(torch.randn(2, positions, 12)).shape == (2, queries, width)


def test_pictures_of_a_batch_do_not_mix(resampler):
    assert_equal(resampler(FEATURES[1:]), resampler(FEATURES)[1:])


def test_half_precision_follows_float32(resampler):
    half = Resampler(**SIZES, dtype=torch.bfloat16).requires_grad_(False)
    half.load_state_dict(resampler.state_dict())
    tokens, exact = half(FEATURES.bfloat16()), resampler(FEATURES)
    assert tokens.dtype == torch.bfloat16
    assert (tokens.float() - exact).norm() < 0.03 * exact.norm()


def test_every_weight_is_made_by_the_given_operations(resampler):
    class Linear(nn.Linear):
        pass

    class LayerNorm(nn.LayerNorm):
        pass

    model = Resampler(**SIZES, operations=SimpleNamespace(Linear=Linear, LayerNorm=LayerNorm))
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.LayerNorm)]
    assert sum(type(layer) is Linear for layer in layers) == 2 + 5 * SIZES["depth"]
    assert sum(type(layer) is LayerNorm for layer in layers) == 1 + 3 * SIZES["depth"]
    assert len(layers) == 3 + 8 * SIZES["depth"]
    owned = {id(weight) for layer in layers for weight in layer.parameters()} | {id(model.latents)}
    assert owned == {id(weight) for weight in model.parameters()}
    model.load_state_dict(resampler.state_dict())
    with torch.no_grad():
        assert_equal(model(FEATURES), resampler(FEATURES))


def test_a_stamp_is_the_same_in_any_precision_that_holds_the_weights(resampler, state):
    stamp = weights_stamp(state)
    assert len(stamp) == 16 and int(stamp, 16)
    assert weights_stamp(resampler.state_dict()) == stamp
    for dtype in (torch.float16, torch.float64):
        assert weights_stamp({key: value.to(dtype) for key, value in state.items()}) == stamp


def test_a_stamp_knows_a_module_by_its_weights_alone(state):
    model = Resampler(**SIZES)
    assert weights_stamp(model.state_dict()) != weights_stamp(state)
    model.load_state_dict(state)
    assert weights_stamp(model.state_dict()) == weights_stamp(state)


@pytest.mark.parametrize("key", ["latents", "norm_out.weight"])
def test_other_weights_have_another_stamp(state, key):
    changed = state[key].clone()
    changed.view(-1)[0] += 0.01
    assert weights_stamp(state | {key: changed}) != weights_stamp(state)
