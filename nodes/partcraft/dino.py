"""What DINOv2 sees of pictures in which parts are found; and a loader of ours for it."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...pit.encoders.dino import MEAN, STD, dino_pixels, picture_sizes, read_dino, whole_pixels
from ...pit.files.known import first_of
from ...pit.files.weights import WeightFileError
from ...pit.partcraft.discovery import SAMPLE
from ..bridge.dino import KIND, PICTURES_AT_ONCE, check_dino, features_of
from ..bridge.folders import ModelFiles
from ..bridge.loaders import FileNode
from .types import CATEGORY

FILES = ModelFiles("dino")


def load_dino(path: Path) -> ClipVisionModel:
    """A DINOv2 of any size but the giant one, in ComfyUI's class; errors as in `read_dino`."""
    config, state = read_dino(path)
    vision = ClipVisionModel({
        **config, "model_type": KIND, "num_channels": 3, "image_mean": MEAN, "image_std": STD,
    })
    missing, unknown = vision.load_sd({key: value.to(vision.dtype) for key, value in state.items()})
    if missing or unknown:
        raise WeightFileError(
            f"{path}: expected the weights that this ComfyUI knows, got {len(missing)} missing and "
            f"{len(unknown)} surplus ones, such as {first_of([*missing, *unknown])}. Update ComfyUI and this "
            "pack."
        )
    return vision


def check_width(node: str, clip_vision: ClipVisionModel, width: int) -> None:
    """Raise ValueError for an encoder that sees with another width than clusters were found with."""
    check_dino(node, clip_vision)
    found = clip_vision.config["hidden_size"]
    if found != width:
        raise ValueError(
            f"{node} expected the DINOv2 of width {width} that the parts were found with, got one of width "
            f"{found}. The published clusters stand on dinov2-base, of width 768."
        )


def middle_features(clip_vision: ClipVisionModel, pictures: Sequence[Image.Image]) -> Tensor:
    """What is seen of the middle of pictures, as the published clusters were found, `[B,d,h,w]`."""
    shorter, size = picture_sizes(clip_vision.image_size)
    return features_of(clip_vision, dino_pixels(pictures, shorter, size))


def whole_features(clip_vision: ClipVisionModel, picture: Image.Image) -> Tensor:
    """What is seen of all of a picture, `[1,d,h,w]`, whatever its aspect."""
    shorter, _ = picture_sizes(clip_vision.image_size)
    return features_of(clip_vision, whole_pixels(picture, clip_vision.config["patch_size"], shorter))


def reader(
    clip_vision: ClipVisionModel, open_picture: Callable[[int], Image.Image], seen: Callable[[int], None]
) -> Callable[[Sequence[int]], Tensor]:
    """The features of numbered pictures, for `pit.partcraft.discovery.discover`.

    It asks for a sample first and then for all; those of the sample are kept until then.

    Args:
        seen: called with how many pictures have been seen since it was called last.
    """
    kept: dict[int, Tensor] = {}

    def features(numbers: Sequence[int]) -> Tensor:
        new = [number for number in numbers if number not in kept]
        found = {number: kept[number] for number in numbers if number in kept}
        for start in range(0, len(new), PICTURES_AT_ONCE):
            chunk = new[start:start + PICTURES_AT_ONCE]
            rows = middle_features(clip_vision, [open_picture(number) for number in chunk])
            found |= dict(zip(chunk, rows, strict=True))
            seen(len(chunk))
        for number in new[:max(0, SAMPLE - len(kept))]:
            kept[number] = found[number].clone()  # not a view, which would keep its whole chunk
        return torch.stack([found[number] for number in numbers])

    return features


class LoadDino(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadDino",
            display_name="Load DINOv2",
            category=CATEGORY,
            description=(
                "Loads a DINOv2 of any size, also the base one that the published clusters stand on, which "
                "ComfyUI's Load CLIP Vision does not recognize."
            ),
            search_aliases=["dino", "dinov2", "dinov2-base", "clip vision"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/clip_vision, such as dinov2-base.safetensors.",
                ),
            ],
            outputs=[io.ClipVision.Output(
                display_name="clip_vision", tooltip="For Find Parts, and for Measure Pictures.",
            )],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_dino(FILES.path(file)))
