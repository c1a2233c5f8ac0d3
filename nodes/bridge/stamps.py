"""What tells one version of a model in the graph from another."""
from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...pit.files.records import state_stamp


def weights_of(patcher: ModelPatcher) -> str:
    """The stamp of a model in the graph; of a loaded one, with its patches."""
    return state_stamp(patcher.model_state_dict())


def patched_weights_of(patcher: ModelPatcher) -> str:
    """The stamp of a model with the patches that other nodes put on it, whether it is loaded or not."""
    parts = {}
    for key, (unpatched, *patches) in patcher.get_key_patches().items():
        parts[key] = unpatched[0]
        parts |= numbers_in(patches, key)
    return state_stamp(parts)


def numbers_in(patches: object, name: str) -> dict[str, Tensor]:
    """The tensors and strengths in ComfyUI's patches of a weight, each under a name of its own."""
    if isinstance(patches, Tensor):
        return {name: patches}
    if isinstance(patches, int | float):
        return {name: torch.tensor(float(patches))}
    inner = getattr(patches, "weights", patches)  # of a LoRA
    if not isinstance(inner, list | tuple):
        return {}
    return {
        key: each for place, value in enumerate(inner)
        for key, each in numbers_in(value, f"{name} {place}").items()
    }
