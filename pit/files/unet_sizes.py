"""The sizes of a UNet of Stable Diffusion 1.5's kind, read off its weights, in diffusers' names."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..messages import quoted
from .checked import State, matrix_shape, whole_number
from .plain_json import read_json
from .weights import WeightFileError

MOST_BLOCKS, MOST_LAYERS = 8, 8  # each is built before the first weight is looked at
HEADS, NORM_GROUPS = 8, 32  # of Stable Diffusion 1.5; weights do not tell them
LATENT_CHANNELS = 4
LAST = "conv_out.weight"


def sizes_of_unet(path: Path, state: State, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The keyword arguments of diffusers' UNet with these weights.

    Args:
        path: of the file; heads and groups of the norms are those in a `config.json` beside it, if there is
            one, else Stable Diffusion 1.5's.
        metadata: of the file, where `num_heads` counts if there is no `config.json`.
    Raises:
        WeightFileError: a UNet of another kind, a weight that tells a size is missing or of another shape, or
            config.json is not one.
    """
    check_kind(path, state)
    return unet_config(path, state) | _heads(path, metadata)


def check_kind(path: Path, state: State) -> None:
    """Raise WeightFileError for a UNet of another Stable Diffusion than 1.5."""
    found = None
    if any(key.startswith("add_embedding.") for key in state):
        found = "SDXL"
    elif any(key.endswith("proj_in.weight") and value.ndim == 2 for key, value in state.items()):
        found = "Stable Diffusion 2"
    if found:
        raise WeightFileError(
            f"{path}: expected a UNet of Stable Diffusion 1.5, got one of {found}. Take the published file."
        )


def unet_config(path: Path, state: State) -> dict[str, Any]:
    """All sizes but heads and groups of the norms.

    Raises:
        WeightFileError: a weight that tells a size is missing or of another shape.
    """
    blocks = count_numbers(path, state, "down_blocks", MOST_BLOCKS)
    attending = [f"down_blocks.{block}.attentions.0.norm.weight" in state for block in range(blocks)]
    first = next((block for block in range(blocks) if attending[block]), 0)
    cross = f"down_blocks.{first}.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    outer = "CrossAttnDownBlock2D", "DownBlock2D"
    inner = "CrossAttnUpBlock2D", "UpBlock2D"
    rising = [f"up_blocks.{block}.attentions.0.norm.weight" in state for block in range(blocks)]
    given = channels(path, state, "conv_in.weight")[1]
    return {
        "block_out_channels": [
            channels(path, state, f"down_blocks.{block}.resnets.0.conv1.weight")[0]
            for block in range(blocks)
        ],
        "in_channels": given, "out_channels": predicted_channels(path, state, given),
        "layers_per_block": count_numbers(path, state, "down_blocks.0.resnets", MOST_LAYERS),
        "down_block_types": [outer[0 if each else 1] for each in attending],
        "up_block_types": [inner[0 if each else 1] for each in rising],
        "cross_attention_dim": matrix_shape(path, state, cross)[1],
    }


def predicted_channels(path: Path, state: State, given: int) -> int:
    """How many channels a UNet predicts: as many as it is given, or else as many as Stable Diffusion does."""
    # A reference UNet has no last layer; and a damaged one must not pass for one of another size.
    found = channels(path, state, LAST)[0] if LAST in state else LATENT_CHANNELS
    return given if found == given else LATENT_CHANNELS


def channels(path: Path, state: State, key: str) -> tuple[int, int]:
    """Channels out and in of a convolution from which sizes are inferred.

    Raises:
        WeightFileError: it is missing, or not a convolution.
    """
    shape = list(state[key].shape) if key in state else None
    if shape is None or len(shape) != 4 or 0 in shape:
        found = "none" if shape is None else f"shape {shape}"
        raise WeightFileError(
            f"{path}: expected a convolution {key}, got {found}. It is incomplete; fetch the file again."
        )
    return shape[0], shape[1]


def count_numbers(path: Path, state: State, prefix: str, most: int) -> int:
    """How many different numbers follow a prefix in the keys.

    Raises:
        WeightFileError: there are none, or more than `most`.
    """
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in state)
    count = len({match[1] for match in matches if match})
    if not 1 <= count <= most:
        raise WeightFileError(
            f"{path}: expected 1 to {most} {prefix}, got {count}. It is damaged or of another kind; take the "
            "published file."
        )
    return count


def _heads(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    numbers = {"attention_head_dim": HEADS, "norm_num_groups": NORM_GROUPS}
    config = path.with_name("config.json")
    if os.path.lexists(config):
        try:
            content = read_json(config)
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise WeightFileError(
                f"{config}: expected the config of a UNet, got something else ({reason}). Fetch it again."
            ) from error
        numbers |= {name: content[name] for name in numbers if isinstance(content, dict) and name in content}
    elif "num_heads" in metadata:
        numbers["attention_head_dim"] = whole_number(path, "num_heads", metadata)
    for name, number in numbers.items():
        # Where levels have heads of one width, each has a number of heads of its own.
        each = number if name == "attention_head_dim" and type(number) is list else [number]
        if not each or any(type(one) is not int or not 1 <= one <= 1024 for one in each):
            raise WeightFileError(
                f"{config}: expected {name} to be a whole number, got {quoted(number)}. Fetch it again."
            )
    return numbers
