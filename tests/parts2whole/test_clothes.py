"""Six masks from a segmenter of clothes and from masks by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from pit.parts2whole.clothes import PARTS, load_segmenter, masks_by_name, segment
from pit.parts2whole.parts import LABELS
from tests.refusal import assert_refused

NAMES = (
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt",
    "Left-shoe", "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
)
TINY = {
    "hidden_sizes": [4, 4, 8, 8], "num_attention_heads": [1, 1, 2, 2], "depths": [1] * 4,
    "decoder_hidden_size": 8, "id2label": dict(enumerate(NAMES)),
}


def write_segmenter(folder: Path) -> SegformerForSemanticSegmentation:
    """A tiny one with random weights, as transformers keeps it."""
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(**TINY))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("segmenter")
    write_segmenter(path)
    return path


def test_every_pixel_has_one_name_as_transformers_finds_it(folder):
    pictures = torch.rand(2, 32, 48, 3)
    masks = segment(load_segmenter(folder), pictures)
    assert tuple(masks) == NAMES and sum(masks.values()).unique().tolist() == [1.0]
    assert sum(bool(mask.any()) for mask in masks.values()) > 2
    model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = model(((pictures - mean) / spread).movedim(-1, 1)).logits
    chosen = torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear", align_corners=False).argmax(1)
    assert all(torch.equal(masks[name] == 1, chosen == number) for number, name in enumerate(NAMES))


def one_pixel_each(names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.eye(len(names))[number].reshape(1, 1, -1) for number, name in enumerate(names)}


def test_the_names_of_the_segmenter_become_the_six_labels():
    masks = masks_by_name(one_pixel_each(NAMES))
    assert tuple(masks) == LABELS
    shown = {label: {NAMES[number] for number in mask[0, 0].nonzero()} for label, mask in masks.items()}
    assert shown == {
        "hair or headwear": {"Hat", "Hair"}, "face": {"Face", "Sunglasses"},
        "upper body clothes": {"Upper-clothes", "Scarf"}, "lower body clothes": {"Skirt", "Pants"},
        "whole body clothes": {"Upper-clothes", "Skirt", "Pants", "Dress", "Belt"},
        "shoes": {"Left-shoe", "Right-shoe"},
    }
    assert set().union(*PARTS.values()) <= {name.lower() for name in NAMES}


def test_masks_named_like_labels_are_taken():
    masks = masks_by_name({" Face": torch.ones(1, 2, 2), "a dog": torch.ones(1, 2, 2)})
    assert masks["face"].all() and not any(masks[label].any() for label in LABELS if label != "face")


@pytest.mark.parametrize(("named", "message"), [
    ({}, "masks of one size, got none"),
    ({"face": torch.ones(1, 2, 2), "hair": torch.ones(1, 3, 2)}, "one size, got .1, 2, 2., .1, 3, 2."),
    ({"a dog": torch.ones(1, 2, 2)}, "names among .*face.*got a dog"),
    ({"x" * 5000: torch.ones(1, 2, 2)}, "names among"),
])
def test_masks_that_make_no_sense_are_refused(named, message):
    with pytest.raises(ValueError, match=message) as caught:
        masks_by_name(named)
    assert len(str(caught.value)) <= 1000


def test_faults_of_a_segmenter_are_named(folder, tmp_path):
    assert_refused(load_segmenter, tmp_path, "expected config.json and one of model.safetensors")
    weights, config = load_file(folder / "model.safetensors"), folder / "config.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    key = "decode_head.classifier.bias"
    for change, message in (({key: torch.zeros(3)}, "shape"), ({"surplus": torch.zeros(3)}, "surplus"),
                            ({key: weights[key] * torch.nan}, "NaN")):
        save_file(weights | change, tmp_path / "model.safetensors")
        assert_refused(load_segmenter, tmp_path, message)
    save_file({name: value for name, value in weights.items() if name != key}, tmp_path / "model.safetensors")
    assert_refused(load_segmenter, tmp_path, "missing", key)
    for content in ("{", json.dumps({"model_type": "vit"}), json.dumps({"depths": [10**9] * 4}),
                    json.dumps({"hidden_sizes": [10**6] * 4}), json.dumps({"mlp_ratios": ["a"]})):
        (tmp_path / "config.json").write_text(content)
        assert_refused(load_segmenter, tmp_path, "config of a SegFormer")
    (tmp_path / "config.json").write_text(json.dumps({"depths": [1]}))
    assert_refused(load_segmenter, tmp_path, "SegFormer")
