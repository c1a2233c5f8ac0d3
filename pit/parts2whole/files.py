"""Parts2Whole as published (github.com/huanngzh/Parts2Whole): a diffusers folder, or its files one by one."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from ..files.checked import (
    State,
    StrPath,
    another_file,
    computable,
    filled,
    matrix_shape,
    shapes,
    sound,
    without_wrappers,
)
from ..files.unet_sizes import MOST_BLOCKS, channels, count_numbers, sizes_of_unet
from ..files.weights import WeightFileError, read_state, write_state
from ..ip_adapter.attention import ImageCrossAttention
from ..messages import quoted
from .pose import PoseGuider
from .unets import blocks_of, empty_reference_unet, empty_unet, widths_of

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
                "diffusion_pytorch_model.bin")
DECOUPLED = "decoupled_attn.pth"  # a safetensors file, in spite of its name
PARTS = ("unet", "reference_unet", "pose_guider", DECOUPLED)  # of a published folder
IMAGE_WEIGHT = re.compile(r"(.+)\.attn2\.processor\.to_[kv]_dc\.weight")
SD15_BLOCKS = [
    *(f"down_blocks.{block}.attentions.{layer}" for block in range(3) for layer in range(2)),
    *(f"up_blocks.{block}.attentions.{layer}" for block in range(1, 4) for layer in range(3)),
    "mid_block.attentions.0",
]


@dataclass(frozen=True)
class Parts2Whole:
    """What the published folder holds, apart from what Stable Diffusion 1.5 has as well."""

    unet: UNet2DConditionModel
    reference_unet: UNet2DConditionModel
    pose_guider: PoseGuider
    decoupled: ImageCrossAttention


def load_parts2whole(folder: StrPath) -> Parts2Whole:
    """The four models in a published folder, on the CPU, for inference, each in the type of its file.

    Raises:
        WeightFileError: names what is missing, or which file is wrong and why.
    """
    folder = Path(folder)
    check_folder(folder)
    return load_parts(*(folder / name for name in PARTS))


def check_folder(folder: Path, wanted: Sequence[str] = PARTS) -> None:
    """Raise WeightFileError, with the names of what is missing, unless a folder holds these parts."""
    # All before any is read: the two large ones take their time.
    missing = [name for name in wanted if not os.path.exists(folder / name)]
    if missing:
        raise WeightFileError(
            f"{folder}: expected a Parts2Whole folder with {', '.join(wanted)}, got none of the name "
            f"{' and '.join(missing)}. Run `python -m pit download parts2whole`, or copy what is missing."
        )


def load_parts(
    unet: StrPath, reference_unet: StrPath, pose_guider: StrPath, decoupled: StrPath,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Parts2Whole:
    """The four models from a file or a folder each, wherever they are; otherwise as `load_parts2whole`.

    Args:
        progress: called with the number of models that are loaded, and of all.
    """
    # Folders without weights are found before the large files are read.
    paths = [weight_file(Path(path)) for path in (unet, reference_unet, pose_guider, decoupled)]
    denoising = load_unet(paths[0])
    progress(1, len(paths))
    reference_unet = load_reference_unet(paths[1])
    progress(2, len(paths))
    guider = load_pose_guider(paths[2])
    model = Parts2Whole(
        denoising, reference_unet, guider, load_decoupled(paths[3], blocks_of(denoising))
    )
    progress(len(paths), len(paths))
    widths = widths_of(denoising)
    _check_fit(paths[1], widths, widths_of(model.reference_unet))
    _check_fit(paths[2], denoising.conv_in.out_channels, model.pose_guider.conv_out.out_channels)
    # Image tokens are as wide as words in the published model, but need not be in others.
    _check_fit(paths[3], widths, model.decoupled.inner_dims)
    return model


def _check_fit(path: Path, expected: object, found: object) -> None:
    """Raise WeightFileError unless a file is of the same sizes as the denoising UNet."""
    if expected != found:
        raise WeightFileError(
            f"{path}: expected widths of {quoted(expected)}, as the denoising UNet has, got {quoted(found)}. "
            "Take all files from the same model."
        )


def weight_file(path: Path) -> Path:
    """The weights in a folder as diffusers writes it; a file is its own."""
    if not path.is_dir():
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise WeightFileError(
        f"{path}: expected one of {', '.join(WEIGHT_FILES)}, got none of them. Fetch the folder again."
    )


def load_unet(path: StrPath) -> UNet2DConditionModel:
    """A denoising UNet in diffusers' keys, a file or its folder. Raises WeightFileError."""
    path = weight_file(Path(path))
    state, metadata = read_state(path)
    # Published UNets may hold copies of what is in the file of the decoupled attention.
    state = {key: value for key, value in without_wrappers(state).items() if not IMAGE_WEIGHT.fullmatch(key)}
    return _filled_unet(path, state, empty_unet, "a denoising UNet", metadata)


def load_reference_unet(path: StrPath) -> UNet2DConditionModel:
    """A reference UNet, a file or its folder. Raises WeightFileError."""
    path = weight_file(Path(path))
    state, metadata = read_state(path)
    state = without_wrappers(state)
    if "conv_out.weight" in state:
        raise WeightFileError(
            f"{path}: expected a reference UNet, which has no conv_out, got a UNet that denoises. Take the "
            "file from the folder reference_unet."
        )
    return _filled_unet(path, state, empty_reference_unet, "a reference UNet", metadata)


def _filled_unet(
    path: Path, state: State, empty: Callable[[dict[str, Any]], UNet2DConditionModel], wanted: str,
    metadata: dict[str, str],
) -> UNet2DConditionModel:
    """A UNet with these weights once all are checked."""
    if "conv_in.weight" not in state or not any(key.startswith("down_blocks.") for key in state):
        raise another_file(path, state, f"{wanted} in diffusers' keys")
    config = sizes_of_unet(path, state, metadata)
    try:
        unet = empty(config)
    except Exception as error:  # diffusers refuses odd sizes with errors of every kind
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{path}: expected the sizes of {wanted}, got others ({reason}). Take the published file."
        ) from error
    state = {key: computable(value) for key, value in sound(path, state, shapes(unet)).items()}
    return filled(unet, state).requires_grad_(False)


def load_pose_guider(path: StrPath) -> PoseGuider:
    """A pose guider, a file or its folder; its sizes are read off the weights. Raises WeightFileError."""
    path = weight_file(Path(path))
    state = without_wrappers(read_state(path)[0])
    if "conv_in.weight" not in state or "blocks.0.weight" not in state:
        raise another_file(path, state, "a pose guider")
    blocks = count_numbers(path, state, "blocks", 2 * MOST_BLOCKS)
    widths = [channels(path, state, "conv_in.weight")[0]]
    widths += [channels(path, state, f"blocks.{block}.weight")[0] for block in range(1, blocks, 2)]
    sizes = {
        "output_dim": channels(path, state, "conv_out.weight")[0], "channels": widths,
        "input_dim": channels(path, state, "conv_in.weight")[1],
    }
    with torch.device("meta"):
        guider = PoseGuider(**sizes)
    state = {key: computable(value) for key, value in sound(path, state, shapes(guider)).items()}
    return filled(guider, state).requires_grad_(False)


def load_decoupled(path: StrPath, blocks: Sequence[str] | None = None) -> ImageCrossAttention:
    """The projections of the image tokens, in the order of the blocks.

    Args:
        blocks: names of the transformer blocks of the UNet that they belong to, see `blocks_of`; those of
            Stable Diffusion 1.5 if None.
    Raises:
        WeightFileError: of another kind, damaged, or for a UNet with other blocks.
    """
    path = Path(path)
    state = without_wrappers(read_state(path)[0])
    if not any(IMAGE_WEIGHT.fullmatch(key) for key in state):
        raise another_file(path, state, "a decoupled attention (decoupled_attn.pth)")
    blocks = [f"{block}.transformer_blocks.0" for block in SD15_BLOCKS] if blocks is None else list(blocks)
    names = {f"{number}.to_{kind}.weight": f"{block}.attn2.processor.to_{kind}_dc.weight"
             for number, block in enumerate(blocks) for kind in "kv"}
    # Those that are missing are named below, with all others; a size needs only those that are there.
    keys = [names[f"{number}.to_k.weight"] for number in range(len(blocks))]
    dims = [matrix_shape(path, state, key)[0] if key in state else 1 for key in keys]
    token_dim = matrix_shape(path, state, next(key for key in state if IMAGE_WEIGHT.fullmatch(key)))[1]
    attention = ImageCrossAttention(token_dim, dims, device="meta")
    expected = {names[key]: shape for key, shape in shapes(attention).items()}
    state = {key: computable(value) for key, value in sound(path, state, expected).items()}
    return filled(attention, {key: state[name] for key, name in names.items()}).requires_grad_(False)


def save_decoupled(
    path: StrPath, attention: ImageCrossAttention, blocks: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the projections of the image tokens in the published keys, as safetensors."""
    write_state(path, {
        f"{block}.attn2.processor.to_{kind}_dc.weight": getattr(layer, f"to_{kind}").weight.detach().cpu()
        for block, layer in zip(blocks, attention, strict=True) for kind in "kv"
    }, metadata or {})
