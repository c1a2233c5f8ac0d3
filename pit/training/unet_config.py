"""The sizes of a UNet of Stable Diffusion 1.5's kind in diffusers' names."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def unet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of diffusers' UNet for one in the original layout.

    Args:
        config: keyword arguments of the original `UNetModel`, as ComfyUI keeps them.

    Raises:
        ValueError: the UNet is not of the kind of Stable Diffusion 1.5.
    """
    first: int = config["model_channels"]
    repeats: Sequence[int] = config["num_res_blocks"]
    # The original layout lists a depth for each residual block, diffusers one for each level.
    depths = [config["transformer_depth"][sum(repeats[:level])] for level in range(len(repeats))]
    # Without this, it is that of the last block.
    middle = config.get("transformer_depth_middle", config["transformer_depth"][-1])
    if len(set(repeats)) != 1 or config.get("adm_in_channels") or middle != 1 or max(depths) > 1:
        raise ValueError(
            "Expected a UNet of the kind of Stable Diffusion 1.5, got one of another structure. Use a model "
            "of Stable Diffusion 1.5."
        )
    widths = tuple(first * factor for factor in config["channel_mult"])
    channels = config.get("num_head_channels", -1)
    return {
        "in_channels": config["in_channels"], "out_channels": config["out_channels"],
        "block_out_channels": widths, "layers_per_block": repeats[0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in depths[::-1]),
        # diffusers' name is wrong and kept for old files: it is the number of heads.
        "attention_head_dim": (
            tuple(width // channels for width in widths) if channels > 0 else config["num_heads"]
        ),
        "cross_attention_dim": config["context_dim"],
        "use_linear_projection": config.get("use_linear_in_transformer", False),
    }
