"""How close pictures are to references and targets: the measures of the published evaluation, one by one.

The published code takes the largest entry in each row of its table of DINO similarities, so that a picture
counts as close to whichever reference is nearest. Here, as it is meant, each is compared with its own.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.dino import SIZE, dino_pixels, picture_sizes
from ..files.checked import State, StrPath, computable, filled, shapes, sound
from ..files.weights import WeightFileError, read_state

LOGIT_SCALE = 100.0  # of CLIP, by which the published figures are multiplied
# Mean and spread of what LPIPS (arXiv 1801.03924) gives AlexNet, for values from -1 to 1.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST_SIDE = 32  # that leaves something after AlexNet's strides


def clip_similarity(pictures: Tensor, references: Tensor) -> Tensor:
    """100 times the cosine of image embeddings `[B, E]`, one with one: `[B]`."""
    return LOGIT_SCALE * functional.cosine_similarity(pictures.float(), references.float())


def dino_similarity(pictures: Tensor, references: Tensor) -> Tensor:
    """The cosine of the mean over all tokens `[B, N, D]`, the class token among them, one with one: `[B]`."""
    return functional.cosine_similarity(pictures.float().mean(1), references.float().mean(1))


def dino_pixel_values(images: Sequence[Image.Image], image_size: int = SIZE) -> Tensor:
    """What a DINOv2 for pictures of this size is shown, by its published processor; as `dino_pixels`."""
    return dino_pixels(images, *picture_sizes(image_size), to_pixel=math.floor)


class Lpips(nn.Module):
    """LPIPS over AlexNet, with the keys of torchvision's AlexNet and of the published linear layers."""

    # Channels, size, stride and padding of the convolutions, by their places in torchvision's `features`.
    CONVOLUTIONS = {
        0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1), 8: (384, 256, 3, 1, 1),
        10: (256, 256, 3, 1, 1),
    }
    POOLED = {3, 6}  # are preceded by a pooling

    def __init__(self, operations=nn) -> None:
        super().__init__()
        self.features = nn.ModuleDict({str(place): operations.Conv2d(*sizes)
                                       for place, sizes in self.CONVOLUTIONS.items()})
        self.lin = nn.ModuleList(operations.Conv2d(sizes[1], 1, 1, bias=False)
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
