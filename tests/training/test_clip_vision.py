"""CLIP vision models from folders and single files give the published tokens; what does not fit is named."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.demo.models.chain import CreatureChain
from pit.demo.models.renderer import creature_encoder
from pit.files.weights import WeightFileError
from pit.images import clip_pixel_values
from pit.ip_adapter.attention import ImageCrossAttention, IPAdapterPlus
from pit.ip_adapter.encoder import fingerprints, load_encoder
from pit.ip_adapter.files import save_ip_adapter
from pit.ip_adapter.resampler import Resampler
from pit.training.clip_vision import load_clip_vision
from tests.frugal import frugally
from tests.golden import assert_equal

SIZES = {
    "hidden_size": 40, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 5,
    "image_size": 56, "patch_size": 14, "projection_dim": 24, "hidden_act": "gelu",
}
RESAMPLER = {"dim": 32, "depth": 2, "dim_head": 8, "heads": 4, "embedding_dim": 40, "output_dim": 48}
H_LIKE = {
    "hidden_size": 1280, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16,
    "patch_size": 14, "image_size": 28, "projection_dim": 8, "hidden_act": "gelu",
}


def write_models(folder: Path, model: CLIPVisionModelWithProjection, resampler: Resampler) -> Path:
    """`folder/` as save_pretrained writes it, and `adapter.safetensors`."""
    model.save_pretrained(folder / "folder")
    save_adapter(folder / "adapter.safetensors", resampler)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Random models, strong enough for every weight to show."""
    torch.manual_seed(0)
    models = CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES)), Resampler(**RESAMPLER)
    with torch.no_grad():
        for weight in models[0].parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.3 / weight[0].numel() ** 0.5)
    return write_models(tmp_path_factory.mktemp("encoders"), *models)


@pytest.fixture
def golden_files(golden, tmp_path) -> Path:
    sizes = golden.facts("pit_tiny_config")
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes["clip"]))
    model.load_state_dict(golden.below("pit_tiny_clip", "clip."), strict=False)
    resampler = Resampler(**sizes["res"])
    resampler.load_state_dict(golden.below("pit_tiny_state", "image_proj."))
    return write_models(tmp_path / "golden", model, resampler)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))


def save_adapter(path: Path, resampler: Resampler) -> None:
    width = resampler.norm_out.normalized_shape[0]
    save_ip_adapter(path, IPAdapterPlus(resampler, ImageCrossAttention(width, [8])))


def single_file(files: Path, folder: Path, config: bool = True) -> Path:
    """A file as in ComfyUI's models/clip_vision."""
    path = folder / "clip_vision_tiny.safetensors"
    path.write_bytes((files / "folder" / "model.safetensors").read_bytes())
    if config:
        (folder / "config.json").write_bytes((files / "folder" / "config.json").read_bytes())
    return path


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_features_and_tokens_are_the_published_ones(golden, golden_files, tmp_path, kind):
    vision = golden_files / "folder" if kind == "folder" else single_file(golden_files, tmp_path)
    encoder = load_encoder(vision, golden_files / "adapter.safetensors")
    size = golden.facts("pit_tiny_config")["clip"]["image_size"]
    assert (encoder.name, encoder.adapter, encoder.size) == (vision.name, "adapter.safetensors", size)
    io = golden.below("pit_tiny_clip", "io.")
    pixels = io["pixel_values"].float()
    assert_equal(encoder.features(pixels), io["features"])
    assert_equal(encoder.features(torch.zeros_like(pixels[:1])), io["zeros_features"])
    assert_equal(encoder.tokens(pixels), io["tokens"])
    assert_equal(encoder.tokens(torch.zeros_like(pixels[:1])), io["uncond_tokens"])


def test_fingerprints_match_over_file_formats_and_precisions(files, tmp_path):
    mine = fingerprints(load_encoder(files / "folder", files / "adapter.safetensors"))
    path = single_file(files, tmp_path)
    save_file({key: value.half() for key, value in load_file(path).items()}, path)
    its = fingerprints(load_encoder(path, files / "adapter.safetensors", dtype=torch.bfloat16))
    assert mine[0].name != its[0].name
    assert all(one.matches(other) for one, other in zip(mine, its, strict=True))


def test_weights_of_text_and_positions_are_ignored(files, tmp_path, pixels):
    expected = load_encoder(files / "folder", files / "adapter.safetensors").tokens(pixels)
    path = single_file(files, tmp_path)
    extra = {
        "logit_scale": torch.ones(1), "text_model.final_layer_norm.weight": torch.ones(4),
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    save_file(load_file(path) | extra, path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": config}))
    encoder = load_encoder(path, files / "adapter.safetensors")
    assert_equal(encoder.tokens(pixels), expected)


def test_the_sizes_of_a_single_file_are_read_from_its_weights(tmp_path):
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**H_LIKE)).eval()
    path = tmp_path / "CLIP-ViT-H.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    loaded = load_clip_vision(path)
    assert {name: getattr(loaded.config, name) for name in H_LIKE} == H_LIKE
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        states = [each(pixels, output_hidden_states=True).hidden_states[-2] for each in (model, loaded)]
    assert_equal(states[1], states[0])


def break_key(state: dict) -> dict:
    del state["vision_model.post_layernorm.bias"]
    return state


@pytest.mark.parametrize("change, message", [
    (lambda state: {"visual.conv1.weight": torch.zeros(4, 3, 2, 2)}, "expected a CLIP vision model in"),
    (break_key, "1 tensors: expected vision_model.post_layernorm.bias to be .*, got no such"),
    (lambda state: state | {"visual_projection.weight": torch.zeros(2, 4)}, r"\[24, 40\], got \[2, 4\]"),
    (lambda state: state | {"vision_model.more": torch.zeros(1)}, "vision_model.more to be absent, got"),
])
def test_a_file_that_is_not_what_its_config_says_is_refused(files, tmp_path, change, message):
    path = single_file(files, tmp_path)
    save_file(change(load_file(path)), path)
    with pytest.raises(WeightFileError, match=message):
        load_clip_vision(path)


def test_a_single_file_of_unknown_width_asks_for_its_config(files, tmp_path):
    with pytest.raises(WeightFileError, match=r"1280.*\[40, 3, 14, 14\].*config.json beside it"):
        load_clip_vision(single_file(files, tmp_path, config=False))


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"model_type": "siglip_vision_model"}', '{"hidden_size": "wide"}'],
)
def test_a_damaged_or_foreign_config_is_named(files, tmp_path, config):
    path = single_file(files, tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightFileError, match="config.json: expected the config of a CLIP vision model"):
        load_clip_vision(path)


def test_folders_without_config_or_weights_are_named(tmp_path):
    with pytest.raises(WeightFileError, match="expected a config.json beside the weights, got none"):
        load_clip_vision(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightFileError, match="expected one of model.safetensors, .*, got none"):
        load_clip_vision(tmp_path)


def test_an_adapter_for_another_encoder_is_refused(files, tmp_path):
    save_adapter(tmp_path / "wide.safetensors", Resampler(**RESAMPLER | {"embedding_dim": 48}))
    with pytest.raises(WeightFileError, match="wide.safetensors: expected .* of width 48, got width 40"):
        load_encoder(files / "folder", tmp_path / "wide.safetensors")


def test_the_creature_encoder_gives_the_tokens_of_the_creature_models():
    pictures = [Image.effect_mandelbrot((90, 70), (-2, -1, 1, 1), quality) for quality in (9, 40)]
    encoder = creature_encoder()
    assert_equal(encoder.tokens(clip_pixel_values(pictures, encoder.size)), CreatureChain().encode(pictures))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "state_dict.model."])
def test_a_wrapped_model_is_the_same(files, tmp_path, prefix):
    path = single_file(files, tmp_path)
    plain = load_clip_vision(path).state_dict()
    save_file({prefix + key: value for key, value in plain.items()}, path)
    found = load_clip_vision(path).state_dict()
    assert all(torch.equal(found[key], plain[key]) for key in plain)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_model_in_float8_becomes_float16(files, tmp_path, dtype):
    path = single_file(files, tmp_path)
    state = {key: value.to(dtype) for key, value in load_clip_vision(path).state_dict().items()}
    save_file(state, path)
    found = dict(load_clip_vision(path).named_parameters())
    assert {value.dtype for value in found.values()} == {torch.float16}
    assert all(torch.equal(value.float(), state[key].float()) for key, value in found.items())


@pytest.mark.parametrize("changes", [
    {"num_hidden_layers": 10**9}, {"num_hidden_layers": "three"}, {"hidden_size": -1},
    {"num_attention_heads": 0},
    {"patch_size": 0}, {"image_size": 10**9, "patch_size": 1}, {"hidden_act": "none"},
])
def test_a_config_of_impossible_sizes_is_refused(files, tmp_path, changes):
    path = single_file(files, tmp_path)
    path.with_name("config.json").write_text(json.dumps(SIZES | changes))
    with frugally(), pytest.raises(WeightFileError) as caught:
        load_clip_vision(path)
    assert len(str(caught.value)) <= 1000
