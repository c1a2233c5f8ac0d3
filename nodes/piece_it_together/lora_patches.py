"""From the tensors of a LoRA file to ComfyUI's own patches, and what of the file found no place."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import comfy.lora
import torch
from comfy.model_management import cast_to_device
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import BOFTAdapter, LoRAAdapter, OFTAdapter, WeightAdapterBase
from torch import Tensor, nn

from ...pit.files.known import first_of
from ...pit.files.lora import PAIR, State, by_module, dora_weight
from ...pit.unet import AttentionLayer, attention_layers

PROBLEMS_SHOWN = 3
MAGNITUDE = "lora_magnitude_vector"


@dataclass(frozen=True)
class Matched:
    """How many modules of a LoRA found their weights, and the names of what did not."""

    found: int
    missing: list[str]

    def __str__(self) -> str:
        missing = f"; not {first_of(self.missing, PROBLEMS_SHOWN)}" if self.missing else ""
        return f"{self.found} of {self.found + len(self.missing)} modules matched{missing}"


class PeftDora(LoRAAdapter):
    """DoRA (arXiv 2402.09353) as PEFT trains it: the norm is that of the changed weight, row by row.

    ComfyUI's own takes that of the weight before the change for magnitudes of this shape, so it is not given
    them.
    """

    name = "PEFT's DoRA"

    def __init__(self, lora: LoRAAdapter, magnitude: Tensor):
        super().__init__(lora.loaded_keys, lora.weights)
        self.magnitude = magnitude

    def calculate_weight(
        self, weight: Tensor, key: str, strength: float, strength_model: float, offset: tuple | None,
        function: Callable[[Tensor], Tensor], intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Tensor | None = None,
    ) -> Tensor:
        """The weight with `strength` of the way to the trained one, as ComfyUI calls it."""
        before = weight.to(intermediate_dtype)
        changed = super().calculate_weight(
            before.clone(), key, 1.0, 1.0, None, lambda difference: difference, intermediate_dtype)
        trained = dora_weight(
            changed, cast_to_device(self.magnitude, weight.device, intermediate_dtype))
        weight += function((strength * (trained - before)).to(weight.dtype))
        return weight


def weight_names(model: ModelPatcher) -> dict[str, str]:
    """The key of the model's weight for every name that a LoRA may use for its module."""
    return comfy.lora.model_lora_keys_unet(model.model, {})


def adapter_weight_names(model: ModelPatcher) -> dict[str, str]:
    """The same for `to_k_ip` and `to_v_ip`: keys of `ImageCrossAttention`."""
    # The names of the text projections plus `_ip`, which ComfyUI does not know: its own loader drops them.
    keys = {
        f"diffusion_model.{layer.module}.to_{kind}.weight": f"{number}.to_{kind}.weight"
        for number, layer in enumerate(cross_attention(model)) for kind in "kv"
    }
    return {f"{name}_ip": keys[key] for name, key in weight_names(model).items() if key in keys}


def cross_attention(model: ModelPatcher) -> list[AttentionLayer]:
    """The cross-attention layers of a model, as an adapter numbers them; empty if it is not such a UNet."""
    unet = model.get_model_object("diffusion_model")
    return attention_layers(unet) if hasattr(unet, "input_blocks") else []


def patches_for(
    module: nn.Module, state: State, names: Mapping[str, str], title: str
) -> tuple[dict[str, object], Matched]:
    """ComfyUI's patches for the weights of a module, by its keys. Raises ValueError if shapes differ."""
    parts, weights = by_module(state), module.state_dict()
    found = {name: names[name] for name in parts if name in names}
    # Not logged by ComfyUI, key by key: what matched and what did not is in the report.
    patches = comfy.lora.load_lora(state, found, log_missing=False)
    patches |= {
        key: with_magnitude(patches[key], name, parts[name], title) for name, key in found.items()
        if MAGNITUDE in parts[name]
    }
    # ComfyUI would only log such a patch, while it samples, and leave the weight as it is.
    for name, key in found.items():
        if key in patches and not _fits(patches[key], key, weights[key].shape):
            size = " x ".join(map(str, weights[key].shape))
            raise ValueError(
                f"Expected a LoRA for this model, in which {name} is {size}, got {title}, made for "
                f"{_made_for(parts[name])}. Connect the kind of model that it was trained on, or choose "
                "another file."
            )
    without_place = [key for key in patches if key not in weights]  # a bias where the model has none
    missing = [name for name in parts if name not in names] + without_place
    kept = {key: patch for key, patch in patches.items() if key in weights}
    return kept, Matched(len(found), missing)


def with_magnitude(patch: object, name: str, parts: State, title: str) -> PeftDora:
    """PEFT's DoRA from ComfyUI's patch of its two factors. Raises ValueError for a mixture of kinds."""
    if not parts.keys() <= {*PAIR, "alpha", MAGNITUDE}:
        raise ValueError(
            f"Expected one kind of change for {name}, got {first_of(list(parts))} in {title}. Save the LoRA "
            "again."
        )
    return PeftDora(patch, parts[MAGNITUDE])


def _fits(patch: object, key: str, shape: torch.Size) -> bool:
    """Whether a patch can change a weight of this shape."""
    if not isinstance(patch, WeightAdapterBase):
        return patch[1][0].shape == shape
    if isinstance(patch, OFTAdapter | BOFTAdapter):
        *_, count, size, _ = patch.weights[0].shape
        return count * size == shape[0]
    # Tried on tensors without values: the patch hands on its change only if it has the shape of the weight.
    reached = []

    def change(difference: Tensor) -> Tensor:
        reached.append(difference.shape)
        return difference

    try:
        patch.calculate_weight(torch.empty(shape, device="meta"), key, 1.0, 1.0, None, change)
    except Exception:  # what has no shape that ComfyUI expects fails there in any way
        return False
    return bool(reached)


def _made_for(parts: State) -> str:
    """The size of the weights that the parts of a module were made for, as far as they tell."""
    down, up = map(parts.get, PAIR)
    return "another size" if down is None or up is None else f"{up.shape[0]} x {down.shape[1]}"


def add_patches(model: ModelPatcher, patches: Mapping[str, object], strength: Callable[[str], float]) -> None:
    """Add patches to a model, each with the strength of its key."""
    # Grouped, because ComfyUI takes one strength per call, and every call reads all weights of the model.
    by_strength: dict[float, dict[str, object]] = defaultdict(dict)
    for key, patch in patches.items():
        by_strength[strength(key)][key] = patch
    for value, chosen in by_strength.items():
        model.add_patches(chosen, value)
