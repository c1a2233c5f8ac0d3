"""DINOv2 loads by its sizes, and is shown pictures as published."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from pit.encoders.dino import (
    MEAN,
    STD,
    dino_features,
    dino_pixels,
    load_dino,
    middle_box,
    picture_sizes,
    read_dino,
    whole_pixels,
)
from pit.messages import ShortError
from tests.golden import assert_equal
from tests.refusal import assert_refused


def tiny(**changes) -> Dinov2Model:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "image_size": 56}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dinov2Model(Dinov2Config(**sizes | changes)).eval()


STATE = tiny().state_dict()


def written(folder: Path, state: dict[str, Tensor], facts: dict[str, str] | None = None) -> Path:
    save_file({key: value.clone() for key, value in state.items()}, folder / "dino.safetensors", facts)
    return folder / "dino.safetensors"


@torch.no_grad()
@pytest.mark.parametrize("changes, facts", [
    ({}, {}), ({"hidden_size": 128, "num_attention_heads": 2}, {}), ({"num_hidden_layers": 5}, {}),
    ({"num_attention_heads": 4}, {"num_heads": "4"}), ({"patch_size": 8, "use_mask_token": False}, {}),
])
def test_sizes_are_read_off_the_file(tmp_path, changes, facts):
    model = tiny(**changes)
    loaded = load_dino(written(tmp_path, model.state_dict(), facts))
    pixels = torch.randn(2, 3, 112, 56)
    assert_equal(loaded(pixels).last_hidden_state, model(pixels).last_hidden_state)
    assert not loaded.training and not any(value.requires_grad for value in loaded.parameters())


@torch.no_grad()
def test_the_names_of_the_published_files_and_of_newer_releases_are_the_same(tmp_path):
    names = {
        "q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    published, newer = dict(STATE), dict(STATE)
    for new, old in ((f"attention.{new}.", f"attention.{old}.") for new, old in names.items()):
        published = {key.replace(new, old): value for key, value in published.items()}
        newer = {key.replace(old, new): value for key, value in newer.items()}
    assert published.keys() != newer.keys()
    pixels, model = torch.randn(2, 3, 112, 56), tiny()
    for state in (published, newer):
        path = written(tmp_path, state)
        assert read_dino(path)[1].keys() == published.keys()
        assert_equal(load_dino(path)(pixels).last_hidden_state, model(pixels).last_hidden_state)
    both = published | {key: value for key, value in newer.items() if "q_proj" in key}
    with pytest.raises(ValueError, match="q_proj"):
        read_dino(written(tmp_path, both))


@torch.no_grad()
def test_features_are_those_before_the_last_norm(tmp_path):
    model, pixels = load_dino(written(tmp_path, STATE)), torch.randn(2, 3, 112, 56)
    features = dino_features(model, pixels)
    assert features.shape == (2, 64, 8, 4)
    normed = model.layernorm(features.flatten(2).transpose(1, 2))
    assert_equal(normed, model(pixels).last_hidden_state[:, 1:])
    assert not torch.allclose(normed, features.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("size", [(300, 500), (256, 256), (1000, 250), (57, 333)])
def test_pictures_are_shown_as_published(size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    resize = transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC)
    published = transforms.Compose([
        resize, transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD),
    ])
    assert_equal(dino_pixels([image])[0], published(image))


def test_a_whole_picture_is_shown_at_the_same_scale():
    image = Image.effect_noise((400, 300), 90).convert("RGB")
    pixels = whole_pixels(image, 14)
    assert pixels.shape == (1, 3, 252, 336)  # 256 and 341, to whole patches
    expected = np.asarray(image.resize((336, 252), Image.Resampling.BICUBIC)) / 255
    assert_equal(pixels[0].movedim(0, -1), torch.from_numpy((expected - MEAN) / STD).float())
    assert whole_pixels(Image.new("RGB", (30, 600)), 14).shape == (1, 3, 5124, 252)
    with pytest.raises(ShortError, match="got 30x601 pixels"):
        whole_pixels(Image.new("RGB", (30, 601)), 14)


def test_pictures_that_cannot_be_shown_are_told():
    with pytest.raises(ShortError, match="at least one picture"):
        dino_pixels([])
    with pytest.raises(ShortError, match="got 1000x5 pixels"):
        dino_pixels([Image.new("RGB", (1000, 5))])
    assert dino_pixels([Image.new("RGBA", (9, 9))]).shape == (1, 3, 224, 224)


@pytest.mark.parametrize("change, message", [
    ({"embeddings.cls_token": None}, "expected a DINOv2 encoder"),
    ({"encoder.layer.1.norm1.bias": None}, "missing: encoder.layer.1.norm1.bias"),
    ({"encoder.layer.7.norm1.bias": torch.ones(64)}, "missing: encoder.layer.2"),
    ({"embeddings.position_embeddings": torch.ones(1, 1, 64)}, "a grid of 0"),
    ({"embeddings.position_embeddings": torch.ones(1, 19, 64)}, "position_embeddings of shape [1, 17, 64]"),
    ({"embeddings.cls_token": torch.ones(1, 1, 60)}, "a width of 60 for 0 heads"),
    ({"layernorm.weight": torch.full((64,), float("nan"))}, "in layernorm.weight, got NaN"),
    ({f"encoder.layer.{number}.x": torch.ones(1) for number in range(200)}, "got 200 layers"),
    ({"more": torch.ones(1)}, "1 unknown: more"),
    ({"encoder.layer.0.mlp.weights_in.weight": torch.ones(2, 2)}, "got the giant one"),
])
def test_what_is_no_dino_is_refused(tmp_path, change, message):
    state = {key: value for key, value in (STATE | change).items() if value is not None}
    assert_refused(read_dino, written(tmp_path, state), message)


def test_a_number_of_heads_that_does_not_fit_is_refused(tmp_path):
    assert_refused(read_dino, written(tmp_path, STATE, {"num_heads": "5"}), "a width of 64 for 5 heads")


def test_a_smaller_encoder_is_shown_smaller_pictures():
    assert picture_sizes(518) == picture_sizes(224) == (256, 224)
    assert picture_sizes(112) == (128, 112) and picture_sizes(56) == (64, 56)


@pytest.mark.parametrize("size", [(256, 256), (512, 1024), (1024, 256)])
def test_the_box_is_what_is_shown_of_a_picture(size):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    box = middle_box(*size)
    cropped = picture.crop(box)
    assert cropped.width == cropped.height == min(size) * 224 // 256
    if min(size) == 256:  # no resizing in between
        assert_equal(dino_pixels([picture]), (
            torch.from_numpy(np.array(cropped)).float() / 255 - torch.tensor(MEAN)
        ).div(torch.tensor(STD)).permute(2, 0, 1)[None])
