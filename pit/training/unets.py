"""diffusers' UNet for training, with the sizes of one that ComfyUI has in the original layout."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def depths_of(config: Mapping[str, Any]) -> list[int]:
    """How many transformers stand behind one another at each level."""
    repeats: Sequence[int] = config["num_res_blocks"]
    # The original layout lists a depth for each residual block, diffusers one for each level.
    return [config["transformer_depth"][sum(repeats[:level])] for level in range(len(repeats))]


def middle_of(config: Mapping[str, Any]) -> int:
    """How many stand in the middle; where the layout does not tell, as many as in the last block."""
    return config.get("transformer_depth_middle", config["transformer_depth"][-1])


def like_sd15(config: Mapping[str, Any]) -> bool:
    """Whether a UNet has the structure of Stable Diffusion 1.5."""
    one_size = len(set(config["num_res_blocks"])) == 1 and max(depths_of(config)) <= 1
    return one_size and middle_of(config) == 1 and not config.get("adm_in_channels")


def like_sdxl(config: Mapping[str, Any]) -> bool:
    """Whether a UNet has the structure of SDXL."""
    one_size = len(set(config["num_res_blocks"])) == 1 and config.get("num_head_channels", -1) > 0
    told = config.get("transformer_depth_middle") == depths_of(config)[-1]
    return bool(one_size and told and config.get("adm_in_channels"))


def unet_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of diffusers' UNet with the sizes of one in the original layout.

    Args:
        config: keyword arguments of the original `UNetModel`, as ComfyUI keeps them, of a UNet that is
            `like_sd15` or `like_sdxl`.
    """
    depths, more = depths_of(config), {}
    widths = tuple(config["model_channels"] * factor for factor in config["channel_mult"])
    if config.get("adm_in_channels"):
        more = {
            "transformer_layers_per_block": tuple(max(1, depth) for depth in depths),
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config["adm_in_channels"],
        }
    channels = config.get("num_head_channels", -1)
    heads = tuple(width // channels for width in widths) if channels > 0 else config["num_heads"]
    return {
        "in_channels": config["in_channels"], "out_channels": config["out_channels"],
        "block_out_channels": widths, "layers_per_block": config["num_res_blocks"][0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in depths[::-1]),
        # diffusers' name is wrong and kept for old files: it is the number of heads.
        "attention_head_dim": heads, "cross_attention_dim": config["context_dim"],
        "use_linear_projection": config.get("use_linear_in_transformer", False), **more,
    }


def unet_of_sizes(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """The UNet of `unet_arguments`, on the meta device, without weights."""
    from diffusers import UNet2DConditionModel  # here, because it takes seconds to import

    with torch.device("meta"):
        return UNet2DConditionModel(**unet_arguments(config))
