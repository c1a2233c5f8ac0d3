"""Modules that ComfyUI loads, offloads and frees."""
from __future__ import annotations

from collections.abc import Callable, Mapping

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor, nn


def managed(
    build: Callable[..., nn.Module], state: Mapping[str, Tensor], dtype: torch.dtype | None = None,
    dynamic: bool = True,
) -> comfy.model_patcher.ModelPatcher:
    """A module that ComfyUI loads, offloads and frees.

    Args:
        build: makes the module; called with `operations`, `device` and `dtype`.
        state: all its weights.
        dtype: what they are kept in, and cast from where they are used; by default that in which most come.
        dynamic: may be loaded piece by piece while it runs, where ComfyUI can; a CUDA graph wants it whole.
    """
    device = comfy.model_management.unet_offload_device()
    dtype = dtype or comfy.utils.weight_dtype(state)
    module = build(operations=comfy.ops.manual_cast, device=device, dtype=dtype).eval()
    patchers = comfy.model_patcher
    patcher = (patchers.CoreModelPatcher if dynamic else patchers.ModelPatcher)(
        module, load_device=comfy.model_management.get_torch_device(), offload_device=device
    )
    state = {key: value.to(dtype) for key, value in state.items()}
    module.load_state_dict(state, assign=patcher.is_dynamic())
    return patcher
