"""Modules under ComfyUI's memory management."""
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
        state: all of its weights.
        dtype: what they are stored in, and cast from where they are used; by default that of most of them.
        dynamic: whether ComfyUI may load it piece by piece as it runs; a CUDA graph needs it whole.
    """
    # Weights wait on the offload device, and `manual_cast` layers cast them to their inputs' device and dtype
    # as they run. That is what lets ComfyUI keep part of a module offloaded when memory is short.
    device = comfy.model_management.unet_offload_device()
    dtype = dtype or comfy.utils.weight_dtype(state)
    module = build(operations=comfy.ops.manual_cast, device=device, dtype=dtype).eval()
    patchers = comfy.model_patcher
    patcher = (patchers.CoreModelPatcher if dynamic else patchers.ModelPatcher)(
        module, load_device=comfy.model_management.get_torch_device(), offload_device=device
    )
    # As ComfyUI loads its own models: the layers of a dynamic one may be built without storage, so the given
    # tensors become the parameters instead of being copied into them. They must have the dtype already.
    state = {key: value.to(dtype) for key, value in state.items()}
    module.load_state_dict(state, assign=patcher.is_dynamic())
    return patcher
