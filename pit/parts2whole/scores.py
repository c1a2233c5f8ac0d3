"""How close pictures are to references and targets: the measures of the published evaluation, one by one.

The published code takes the largest entry in each row of its table of DINO similarities, so that a picture
counts as close to whichever reference is nearest. Here, as it is meant, each is compared with its own.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ..files.checked import State, StrPath, computable, filled, shapes, sound
from ..files.weights import WeightFileError, read_state
from ..images import on_white
from ..messages import ShortError

LOGIT_SCALE = 100.0  # of CLIP, by which the published figures are multiplied
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_SHORTER, DINO_SIZE = 256, 224  # as the published processor resizes and crops
MOST_ASPECT = 20
# Mean and spread of what LPIPS (arXiv 1801.03924) gives AlexNet, for values from -1 to 1.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST_SIDE = 32  # that leaves something after AlexNet's strides


def clip_similarity(pictures: Tensor, references: Tensor) -> Tensor:
    """100 times the cosine of image embeddings `[B, E]`, one with one: `[B]`."""
    return LOGIT_SCALE * functional.cosine_similarity(pictures.float(), references.float())


def dino_similarity(pictures: Tensor, references: Tensor) -> Tensor:
    """The cosine of the mean over all tokens `[B, N, D]`, the class token among them, one with one: `[B]`."""
    return functional.cosine_similarity(pictures.float().mean(1), references.float().mean(1))


def dino_pixel_values(images: Sequence[Image.Image]) -> Tensor:
    """Pixel values `[B, 3, 224, 224]`: the shorter side resized to 256, the middle cropped, normalized.

    Raises:
        ValueError: a side is more than 20 times as long as the other.
    """
    mean, spread = (torch.tensor(each) for each in IMAGENET)
    pixels = torch.from_numpy(np.stack([np.asarray(_cropped(on_white(image))) for image in images]))
    return ((pixels.float() / 255 - mean) / spread).movedim(-1, 1)


def _cropped(image: Image.Image) -> Image.Image:
    short = min(image.size)
    if max(image.size) > MOST_ASPECT * short:
        raise ShortError(
            f"Expected a picture whose sides differ by at most {MOST_ASPECT} to 1, got {image.width}x"
            f"{image.height}. Crop it."
        )
    width, height = (DINO_SHORTER * side // short for side in image.size)
    left, top = (width - DINO_SIZE) // 2, (height - DINO_SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + DINO_SIZE, top + DINO_SIZE))


class Lpips(nn.Module):
    """LPIPS over AlexNet, with the keys of torchvision's AlexNet and of the published linear layers."""

    # Channels, size, stride and padding of the convolutions, by their places in torchvision's `features`.
    CONVOLUTIONS = {
        0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1), 8: (384, 256, 3, 1, 1),
        10: (256, 256, 3, 1, 1),
    }
    POOLED = {3, 6}  # are preceded by a pooling

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({str(place): nn.Conv2d(*sizes)
                                       for place, sizes in self.CONVOLUTIONS.items()})
        self.lin = nn.ModuleList(nn.Conv2d(sizes[1], 1, 1, bias=False)
                                 for sizes in self.CONVOLUTIONS.values())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of pictures `[B, 3, H, W]` in 0..1, one with one: `[B]`, 0 for the same."""
        shift, scale = (first.new_tensor(each)[:, None, None] for each in (SHIFT, SCALE))
        one, other = ((2 * each - 1 - shift) / scale for each in (first, second))
        distance = first.new_zeros(len(first))
        for (place, convolution), linear in zip(self.features.items(), self.lin, strict=True):
            if int(place) in self.POOLED:
                one, other = (functional.max_pool2d(each, 3, 2) for each in (one, other))
            one, other = (functional.relu(convolution(each)) for each in (one, other))
            squares = (_normalized(one) - _normalized(other)).square()
            distance = distance + linear(squares).mean((1, 2, 3))
        return distance


def _normalized(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load_lpips(alexnet: StrPath, linear: StrPath) -> Lpips:
    """LPIPS from torchvision's AlexNet and the linear layers of the package lpips (`alex.pth`).

    Raises:
        WeightFileError: a file is another one, or damaged.
    """
    with torch.device("meta"):
        lpips = Lpips()
    expected = shapes(lpips)
    state = {
        **_taken(Path(alexnet), expected, "features.", "features.{}", "AlexNet, as torchvision has it"),
        **_taken(Path(linear), expected, "lin.", "lin{}.model.1", "linear layers of LPIPS (alex.pth)"),
    }
    return filled(lpips, state).eval().requires_grad_(False)


def _taken(path: Path, expected: dict, prefix: str, named: str, what: str) -> State:
    """The weights of a prefix from a file that names their layers in another way."""
    state, names = read_state(path)[0], {}
    for key in expected:
        if key.startswith(prefix):
            place, kind = key.removeprefix(prefix).split(".")
            names[key] = f"{named.format(place)}.{kind}"
    missing = [name for name in names.values() if name not in state]
    if missing:
        raise WeightFileError(
            f"{path}: expected {what}, got no {missing[0]}. Choose the file of that network."
        )
    # What else is in it, such as AlexNet's classifier, is not read.
    weights = sound(path, {name: state[name] for name in names.values()},
                    {name: expected[key] for key, name in names.items()})
    return {key: computable(weights[name]).float() for key, name in names.items()}
