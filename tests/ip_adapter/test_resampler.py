"""TODO"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.files.records import weights_stamp
from pit.ip_adapter.resampler import Resampler
from tests.golden import assert_equal, below, facts

IO = below("pit_tiny_io", "resampler.")
CLIP = below("pit_tiny_clip", "io.")
SIZES = facts("pit_tiny_config")["res"]


@pytest.fixture(scope="module")
def resampler() -> Resampler:
    model = Resampler(**SIZES)
    model.load_state_dict(below("pit_tiny_state", "image_proj."))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clip() -> CLIPVisionModelWithProjection:
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**facts("pit_tiny_config")["clip"]))
    loaded = model.load_state_dict(below("pit_tiny_clip", "clip."), strict=False)
    assert set(loaded.missing_keys) <= {"vision_model.embeddings.position_ids"} and not loaded.unexpected_keys
    return model.eval().requires_grad_(False)


def test_tokens_equal_the_published_ones(resampler):
    assert_equal(resampler(IO["features"]), IO["tokens"])


@pytest.mark.parametrize("features, tokens", [("features", "tokens"), ("zeros_features", "uncond_tokens")])
def test_tokens_of_clip_features_equal_the_published_ones(resampler, features, tokens):
    assert_equal(resampler(CLIP[features]), CLIP[tokens])


@pytest.mark.parametrize("zero, features, tokens", [
    (False, "features", "tokens"), (True, "zeros_features", "uncond_tokens"),
])
def test_the_whole_chain_from_pixels_equals_the_published_one(resampler, clip, zero, features, tokens):
    pixels = CLIP["pixel_values"].float()
    pixels = torch.zeros_like(pixels[:1]) if zero else pixels
    states = clip(pixels, output_hidden_states=True).hidden_states
    assert len(states) == CLIP["num_hidden_states"].item()
    assert_equal(states[-2], CLIP[features])
    assert_equal(resampler(states[-2]), CLIP[tokens])


def test_keys_and_shapes_are_the_published_ones():
    published = facts("ip_adapter_plus_sdxl_keys")
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
    assert_equal(resampler(IO["features"][1:]), IO["tokens"][1:])


def test_half_precision_follows_float32(resampler):
    half = Resampler(**SIZES, dtype=torch.bfloat16).requires_grad_(False)
    half.load_state_dict(resampler.state_dict())
    tokens = half(IO["features"].bfloat16())
    assert tokens.dtype == torch.bfloat16
    assert (tokens.float() - IO["tokens"]).norm() < 0.03 * IO["tokens"].norm()


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
        assert_equal(model(IO["features"]), IO["tokens"])


def test_a_stamp_is_the_same_in_any_precision_that_holds_the_weights():
    half = {key: value.half() for key, value in below("pit_tiny_state", "image_proj.").items()}
    stamp = weights_stamp(half)
    assert len(stamp) == 16 and int(stamp, 16)
    for wide in (torch.float32, torch.float64):
        assert weights_stamp({key: value.to(wide) for key, value in half.items()}) == stamp
    assert weights_stamp(below("pit_tiny_state", "image_proj.")) == stamp


def test_a_stamp_is_that_of_a_module_and_of_its_file(resampler):
    assert weights_stamp(resampler.state_dict()) == weights_stamp(below("pit_tiny_state", "image_proj."))


@pytest.mark.parametrize("key", ["latents", "norm_out.weight"])
def test_other_weights_have_another_stamp(key):
    state = below("pit_tiny_state", "image_proj.")
    changed = state[key].clone()
    changed.view(-1)[0] += 0.01
    assert weights_stamp(state | {key: changed}) != weights_stamp(state)
    torch.manual_seed(1)
    assert weights_stamp(Resampler(**SIZES).state_dict()) != weights_stamp(state)
