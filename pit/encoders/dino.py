"""DINOv2 (arXiv 2304.07193): its files, what it is shown of pictures, and what it sees at each place."""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files.checked import (
    MOST_LAYERS,
    State,
    StrPath,
    another_file,
    computable,
    filled,
    shapes,
    sound,
    whole_number,
    without_wrappers,
)
from ..files.weights import WeightFileError, read_state
from ..images import on_white
from ..messages import ShortError

if TYPE_CHECKING:
    from transformers import Dinov2Model

HEAD = 64  # numbers in a head of every published one; weights do not tell
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per RGB channel
SHORTER, SIZE = 256, 224  # as published
MOST_ASPECT = 20  # its attention looks from each place to each other one
TOKEN, PATCHES = "embeddings.cls_token", "embeddings.patch_embeddings.projection.weight"
PLACES, MASK = "embeddings.position_embeddings", "embeddings.mask_token"
GATED = re.compile(r"encoder\.layer\.0\.mlp\.(weights_in|gate_proj)\.")  # of the giant one alone

# Newer releases of transformers call these otherwise than the published files, and write them so.
PUBLISHED_NAMES = {
    ".attention.q_proj.": ".attention.attention.query.", ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.", ".attention.o_proj.": ".attention.output.dense.",
}


def read_dino(path: StrPath) -> tuple[dict[str, Any], State]:
    """The configuration of a DINOv2 file, as transformers and ComfyUI name its fields, and its weights.

    The names of the weights are those of the published files, which ComfyUI's class has as well.

    All sizes are read off the tensors but the number of heads, which is `num_heads` in the metadata, else
    such that a head has 64 numbers.

    Raises:
        WeightFileError: not a DINOv2, a damaged one, or the giant one, which ComfyUI itself loads.
    """
    path = Path(path)
    state, metadata = read_state(path)
    state = without_wrappers(state)
    if not {TOKEN, PATCHES, PLACES} <= state.keys():
        raise another_file(path, state, "a DINOv2 encoder")
    if any(map(GATED.match, state)):
        raise WeightFileError(
            f"{path}: expected a DINOv2 with plain layers (small, base or large), got the giant one. "
            "ComfyUI's Load CLIP Vision reads it."
        )
    config = _config(path, state, metadata)
    wanted = {published_name(key): shape for key, shape in shapes(_empty(config)).items()}
    checked = sound(path, _with_published_names(state), wanted)
    return config, {key: computable(value) for key, value in checked.items()}


def load_dino(path: StrPath) -> Dinov2Model:
    """The DINOv2 in a file, on the CPU, for inference; errors as in `read_dino`."""
    config, state = read_dino(path)
    empty = _empty(config)
    own = {key: state[published_name(key)] for key in empty.state_dict()}
    return filled(empty, own).requires_grad_(False)


def published_name(key: str) -> str:
    """What the published files call a weight."""
    for newer, published in PUBLISHED_NAMES.items():
        key = key.replace(newer, published)
    return key


def _with_published_names(state: State) -> State:
    renamed = {published_name(key): value for key, value in state.items()}
    # Two of one name are left as they are, so that they are found to be too many.
    return renamed if len(renamed) == len(state) else state


def _empty(config: Mapping[str, Any]) -> Dinov2Model:
    from transformers import Dinov2Config, Dinov2Model  # takes seconds

    with torch.device("meta"):
        return Dinov2Model(Dinov2Config(**config))


def _config(path: Path, state: State, metadata: Mapping[str, str]) -> dict[str, Any]:
    width, patch = state[TOKEN].shape[-1], state[PATCHES].shape[-1]
    side = math.isqrt(max(state[PLACES].shape[1] - 1, 0)) if state[PLACES].ndim == 3 else 0
    matches = (re.match(r"encoder\.layer\.(\d{1,9})\.", key) for key in state)
    layers = len({match[1] for match in matches if match})
    heads = whole_number(path, "num_heads", metadata) if "num_heads" in metadata else width // HEAD
    if not 1 <= layers <= MOST_LAYERS or heads < 1 or width % heads or side < 1 or patch < 1:
        raise WeightFileError(
            f"{path}: expected a DINOv2 with 1 to {MOST_LAYERS} layers, a width of whole heads and a grid of "
            f"places, got {layers} layers, a width of {width} for {heads} heads and a grid of {side}. Take "
            "the published file."
        )
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_ratio": 4,
        "patch_size": patch, "image_size": side * patch, "layer_norm_eps": 1e-6,
        "use_swiglu_ffn": False, "use_mask_token": MASK in state,
    }


def dino_pixels(
    images: Sequence[Image.Image], shorter: int = SHORTER, size: int = SIZE,
    to_pixel: Callable[[float], int] = round,
) -> Tensor:
    """What DINOv2 is shown of pictures, `[B,3,size,size]`: the middle of each, in ImageNet's normalization.

    Args:
        shorter: pixels of the shorter side before the middle is cut out.
        to_pixel: where the middle begins if that is between two pixels: `round` as torchvision does it,
            `math.floor` as DINOv2's own processor in transformers.
    Raises:
        ShortError: there is no picture, or one with a side more than 20 times as long as the other.
    """
    if not images:
        raise ShortError("Expected at least one picture, got none. Give some.")
    return torch.cat([_normalized(_middle(image, shorter, size, to_pixel)) for image in images])


def picture_sizes(image_size: int) -> tuple[int, int]:
    """The shorter side and the middle of what an encoder for pictures of this size is shown.

    The published encoder is for larger pictures than it is shown; one for smaller ones is not shown more.
    """
    size = min(SIZE, image_size)
    return round(size * SHORTER / SIZE), size


def middle_box(width: int, height: int) -> tuple[int, int, int, int]:
    """What of a picture `dino_pixels` shows: left, top, right and bottom in its own pixels."""
    side = min(width, height) * SIZE / SHORTER
    left, top = (width - side) / 2, (height - side) / 2
    return round(left), round(top), round(left + side), round(top + side)


def whole_pixels(image: Image.Image, patch: int, shorter: int = SHORTER) -> Tensor:
    """All of a picture `[1,3,h,w]` at the scale of `dino_pixels`, with sides of whole patches.

    What is found in it lies over the whole picture, whatever its aspect; errors as in `dino_pixels`.
    """
    _check_aspect(image)
    sides = (max(1, round(shorter * side / min(image.size) / patch)) * patch for side in image.size)
    return _normalized(on_white(image).resize(tuple(sides), Image.Resampling.BICUBIC))


def _normalized(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))[None].float() / 255
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()


def _middle(
    image: Image.Image, shorter: int, size: int, to_pixel: Callable[[float], int]
) -> Image.Image:
    _check_aspect(image)
    resized = on_white(image).resize(
        tuple(shorter * side // min(image.size) for side in image.size), Image.Resampling.BICUBIC
    )
    left, top = (to_pixel((side - size) / 2) for side in resized.size)
    return resized.crop((left, top, left + size, top + size))


def _check_aspect(image: Image.Image) -> None:
    if max(image.size) > MOST_ASPECT * min(image.size):
        raise ShortError(
            f"Expected pictures with sides of at most {MOST_ASPECT} to 1, got {image.width}x{image.height} "
            "pixels. Crop it."
        )


@torch.no_grad()
def dino_features(model: Dinov2Model, pixels: Tensor) -> Tensor:
    """What DINOv2 sees at each place, `[B,d,h,w]`: its last layer, as published without the last norm."""
    tokens = model.encoder(model.embeddings(pixels.to(model.dtype)))[0]
    rows, columns = (side // model.config.patch_size for side in pixels.shape[-2:])
    # The first token stands for the whole picture.
    return tokens[:, 1:].unflatten(1, (rows, columns)).movedim(-1, 1)


def features_of(
    model: Dinov2Model, open_picture: Callable[[int], Image.Image], device: torch.device | str = "cpu"
) -> Callable[[Sequence[int]], Tensor]:
    """A function that gives the features of numbered pictures, in float32 on the CPU.

    Args:
        device: that of the model.
    """
    def features(numbers: Sequence[int]) -> Tensor:
        pixels = dino_pixels([open_picture(number) for number in numbers])
        return dino_features(model, pixels.to(device)).float().cpu()

    return features
