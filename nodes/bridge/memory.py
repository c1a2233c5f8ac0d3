"""Modules under ComfyUI's memory management, and what they compute in."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor, nn

from ...pit.flow.precision import cpu_has_bf16

# Narrower priors lose more time to the casts than they gain from weights of half the size.
WIDE = 1024


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


def castable(module: nn.Module) -> nn.Module:
    """A module of another library, whose layers ComfyUI can cast, keep offloaded and patch from now on."""
    for layer in module.modules():
        kind = type(layer)
        # These classes add a `forward` and no weights. Layers of kinds of their own stay what they are.
        if kind.__module__.startswith("torch.nn.") and hasattr(comfy.ops.manual_cast, kind.__name__):
            layer.__class__ = getattr(comfy.ops.manual_cast, kind.__name__)
            layer.bias = getattr(layer, "bias", None)  # which embeddings of torch lack
    comfy.model_management.archive_model_dtypes(module)
    return module


def prior_dtype(hidden_dim: int) -> torch.dtype:
    """What a prior computes in: bfloat16 if it is wide enough to gain from it and the device has it."""
    if hidden_dim < WIDE:
        return torch.float32
    device = comfy.model_management.get_torch_device()
    # ComfyUI rules out bfloat16 on every CPU, because most emulate it slowly; some multiply in it natively.
    if device.type == "cpu":
        has_bf16 = cpu_has_bf16()
    else:
        has_bf16 = comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if has_bf16 else torch.float32


def in_batches(draw: Callable[[range], Tensor], count: int, most: int | None = None) -> Tensor:
    """What `draw` makes of the numbers 0..count - 1: at most `most` at once, and fewer if memory runs out."""
    size = min(count, most or count)
    while True:
        try:
            return torch.cat([draw(range(count)[first:first + size]) for first in range(0, count, size)])
        except RuntimeError as error:
            if size == 1 or not comfy.model_management.is_oom(error):
                raise
        # Outside of `except`: there, the error still holds all frames of the failed attempt, and with them
        # the very tensors that are to be freed.
        size = math.ceil(size / 2)
        comfy.model_management.soft_empty_cache()
