"""Measures of pictures: their formulas, their preprocessing, the files of LPIPS."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pit.parts2whole.scores import (
    Lpips,
    clip_similarity,
    dino_pixel_values,
    dino_similarity,
    load_lpips,
)
from tests.refusal import assert_refused


def write_lpips(folder: Path) -> tuple[Path, Path]:
    """Random weights under the names of torchvision's AlexNet, and those of the package lpips."""
    torch.manual_seed(0)
    state = Lpips().state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    alexnet = {key: value for key, value in state.items() if key.startswith("features.")}
    linear = {f"lin{key.split('.')[1]}.model.1.weight": value.abs()
              for key, value in state.items() if key.startswith("lin.")}
    paths = folder / "alexnet.safetensors", folder / "alex.safetensors"
    save_file(alexnet | {"classifier.1.weight": torch.zeros(2, 2)}, paths[0])
    save_file(linear, paths[1])
    return paths


def test_similarities_are_cosines_of_each_pair():
    first, second = torch.randn(3, 8), torch.randn(3, 8)
    cosines = torch.stack([a @ b / a.norm() / b.norm() for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(clip_similarity(first, second), 100 * cosines)
    tokens = torch.randn(3, 5, 8)
    centered = tokens - tokens.mean(1, keepdim=True) + first[:, None]
    torch.testing.assert_close(dino_similarity(centered, second[:, None]), cosines)


@pytest.mark.parametrize("size", [(300, 200), (224, 500), (256, 256)])
def test_dino_sees_what_its_published_processor_gives(size):
    from transformers import BitImageProcessor

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype="uint8"))
    processor = BitImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_convert_rgb=True,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=3,
    )
    expected = torch.from_numpy(np.asarray(processor(image, return_tensors="np")["pixel_values"]))
    # Versions of the processor round pixels of 8 bits at different places.
    difference = (dino_pixel_values([image]) - expected).abs()
    assert difference.max() < 2.01 / 255 / 0.224 and difference.mean() < 0.5 / 255


def test_a_sliver_is_refused():
    with pytest.raises(ValueError, match="at most 20 to 1, got 2x100"):
        dino_pixel_values([Image.new("RGB", (2, 100))])


def test_lpips_is_the_published_formula(tmp_path):
    lpips = load_lpips(*write_lpips(tmp_path))
    first, second = torch.rand(2, 2, 3, 64, 80)
    shift, scale = (torch.tensor(each)[:, None, None] for each in (
        (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    layers, distance = lpips.features, torch.zeros(2)
    x, y = ((2 * each - 1 - shift) / scale for each in (first, second))
    for number, place in enumerate(("0", "3", "6", "8", "10")):
        if place in ("3", "6"):
            x, y = (torch.nn.MaxPool2d(3, 2)(each) for each in (x, y))
        x, y = (layers[place](each).clamp(min=0) for each in (x, y))
        units = [each / (each.square().sum(1, keepdim=True).sqrt() + 1e-10) for each in (x, y)]
        weights = lpips.lin[number].weight[0, :, 0, 0]
        squares = (units[0] - units[1]).square()
        distance += torch.einsum("bchw,c->bhw", squares, weights).mean((1, 2))
    torch.testing.assert_close(lpips(first, second), distance)
    assert lpips(first, first).tolist() == [0, 0] and (distance > 0).all()


def test_faults_of_the_files_of_lpips_are_named(tmp_path):
    alexnet, linear = write_lpips(tmp_path)
    whole = load_file(linear)
    assert_refused(load_lpips, linear, "expected AlexNet", "got no features.0.weight", linear=linear)
    with pytest.raises(ValueError, match="linear layers of LPIPS .*got no lin0.model.1.weight"):
        load_lpips(alexnet, alexnet)
    save_file(whole | {"lin2.model.1.weight": torch.zeros(1, 3, 1, 1)}, linear)
    with pytest.raises(ValueError, match="lin2.model.1.weight of shape"):
        load_lpips(alexnet, linear)
    save_file(whole | {"lin2.model.1.weight": whole["lin2.model.1.weight"] * torch.nan}, linear)
    with pytest.raises(ValueError, match="finite numbers in lin2.model.1.weight"):
        load_lpips(alexnet, linear)
