"""Copies of the graph's weights, with their patches, for trainings that need networks of other packages."""
from __future__ import annotations

from collections.abc import Iterable

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn


def copied_weights(patcher: ModelPatcher, keys: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies of weights on the CPU with the patches of other nodes, from a model that is not loaded."""
    weights, cpu = patcher.model_state_dict(), torch.device("cpu")
    state = {}
    for key in keys:
        patched = key in patcher.patches
        value = patcher.patch_weight_to_device(key, cpu, return_weight=True) if patched else weights[key]
        # Copied in any case: the model of the graph must not share memory with one that is being trained.
        state[key] = value.to("cpu", dtype, copy=True)
    return state


def fill_unet(unet: nn.Module, model: ModelPatcher, dtype: torch.dtype) -> None:
    """Give a UNet of diffusers that has no weights yet those of the graph's."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    keys = {name: f"diffusion_model.{names[name]}" for name in unet.state_dict()}
    weights = copied_weights(model, keys.values(), dtype)
    unet.load_state_dict({name: weights[key] for name, key in keys.items()}, assign=True)
