"""The creatures' InstructPix2Pix, the base of SD 1.5's structure with other weights, and its optimizer.

The file of the UNet holds in full the weights that are not those of the base. At these widths, differences of
a rank that loses nothing would take as much room.
"""
from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .library import OPTIMIZER
from .weights import SD15, check_base, float_weights, read_weights, weight_file, with_prefix

INSTRUCT = "creature_instruct.safetensors"
# What stays as it is in the base: what tells the time, and what works on 4 x 4 places, of which others do.
KEPT = ("time_embedding.", ".time_emb_proj.", "mid_block.resnets.")


def is_kept(key: str) -> bool:
    """Whether a weight of the UNet, under diffusers' name, is the base's own."""
    return any(part in key for part in KEPT)


def base_weights() -> dict[str, Tensor]:
    """The weights of the base's UNet in fp32, under diffusers' names; errors as in `weight_file`."""
    return with_prefix(float_weights(SD15), "unet.")


def instruct_changes() -> dict[str, Tensor]:
    """The weights of the UNet that are not those of the base, under diffusers' names, as they are stored.

    Raises:
        WeightFileError: they are missing, damaged, or were trained on another base.
    """
    check_base(weight_file(INSTRUCT), "object_insertion")
    return read_weights(INSTRUCT)


def instruct_state() -> dict[str, Tensor]:
    """All weights of the UNet in fp32, under diffusers' names; errors as in `instruct_changes`."""
    changes = {key: value.float() for key, value in instruct_changes().items()}
    return base_weights() | changes


def optimizer_file() -> Path:
    """The file of the Embedding Optimizer. Raises WeightFileError as `weight_file` does."""
    return weight_file(OPTIMIZER)
