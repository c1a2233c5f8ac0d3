"""UNets of Stable Diffusion 1.5's structure, from diffusers' names of weights to ComfyUI's.

ComfyUI renames such UNets by itself, but only with 4 or 9 input channels, not an InstructPix2Pix with 8.
"""
from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ..files.checked import State

INSTRUCT_CHANNELS = 8
RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
}
BLOCK = re.compile(
    r"(down|up|mid)_blocks?\.(?:(\d{1,3})\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d{1,3})\.(.+)"
)


def is_instruct_unet(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are an InstructPix2Pix of Stable Diffusion 1.5's kind, with diffusers' names."""
    first = state.get("conv_in.weight")
    plain = first is not None and "mid_block.resnets.0.conv1.weight" in state and first.ndim == 4
    # SDXL has an embedding of sizes and pooled texts, and ComfyUI renames it.
    return plain and first.shape[1] == INSTRUCT_CHANNELS and "add_embedding.linear_1.weight" not in state


def in_comfyui_layout(state: State) -> State:
    """A UNet with ComfyUI's names; what is none of diffusers' stays, to be told by whoever loads it."""
    # As many residual blocks in every level, and one more on the way up, each a block of its own there, as is
    # each change of the resolution on the way down.
    per_level = len({key.split(".")[3] for key in state if key.startswith("down_blocks.0.resnets.")})
    attending = {key.split(".")[1] for key in state if re.match(r"up_blocks\.\d+\.attentions\.", key)}

    def renamed(key: str) -> str:
        match = BLOCK.fullmatch(key)
        if match is None:
            name, _, kind = key.rpartition(".")
            return f"{ENDS[name]}.{kind}" if name in ENDS else key
        way, level, part, number, rest = match.groups()
        return f"{_place(way, level, part, int(number), per_level, level in attending)}.{_inner(part, rest)}"

    return {renamed(key): value for key, value in state.items()}


def _place(way: str, level: str | None, part: str, number: int, per_level: int, attending: bool) -> str:
    """Where a part of a block is: `way` and `level` name the block, `part` and `number` what is in it."""
    if way == "mid":
        return f"middle_block.{2 * number if part == 'resnets' else 1}"
    block = (per_level + 1) * int(level) + number
    if part == "downsamplers":
        return f"input_blocks.{block + per_level + 1}.0"
    if part == "upsamplers":  # in the last block of its level, behind all else
        return f"output_blocks.{block + per_level}.{2 if attending else 1}"
    first = f"input_blocks.{block + 1}" if way == "down" else f"output_blocks.{block}"
    return f"{first}.{0 if part == 'resnets' else 1}"


def _inner(part: str, rest: str) -> str:
    """The name of a weight within its part."""
    name, _, kind = rest.rpartition(".")
    if part == "resnets":
        return f"{RESIDUAL.get(name, name)}.{kind}"
    return f"op.{kind}" if part == "downsamplers" and name == "conv" else rest
