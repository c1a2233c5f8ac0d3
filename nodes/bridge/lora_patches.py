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
from ...pit.files.lora import State, by_module, dora_weight
from ...pit.files.lora_parts import MAGNITUDE, PAIR
from ...pit.files.lora_shapes import BIASES, change_shape, fits, wrong_scale
from ...pit.unet import AttentionLayer, attention_layers

PROBLEMS_SHOWN = 3


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

    # The magnitude is one more of the weights, after those of the base class: where memory is short, ComfyUI
    # moves them all, and makes a new object of its class from them.
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
            changed, cast_to_device(self.weights[-1], weight.device, intermediate_dtype))
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
    numbered = {
        f"ip_adapter.{2 * number + 1}.to_{kind}_ip": f"{number}.to_{kind}.weight"
        for number in range(len(keys) // 2) for kind in "kv"
    }
    return numbered | {f"{name}_ip": keys[key] for name, key in weight_names(model).items() if key in keys}


def cross_attention(model: ModelPatcher) -> list[AttentionLayer]:
    """The cross-attention layers of a model, as an adapter numbers them; empty if it is not such a UNet."""
    unet = model.get_model_object("diffusion_model")
    return attention_layers(unet) if hasattr(unet, "input_blocks") else []


def patches_for(
    module: nn.Module, state: State, names: Mapping[str, str], title: str
) -> tuple[dict[str, object], Matched]:
    """ComfyUI's patches for the weights of a module, by its keys.

    Raises:
        ValueError: shapes differ, or two modules of the LoRA are for one weight.
    """
    parts, shapes = by_module(state), {key: weight.shape for key, weight in module.state_dict().items()}
    found = found_once(parts, {name: key for name, key in names.items() if key in shapes}, title)
    # Not logged by ComfyUI, key by key: what matched and what did not is in the report.
    patches = comfy.lora.load_lora(state, found, log_missing=False)
    patches |= {
        key: with_magnitude(patches[key], name, parts[name], title) for name, key in found.items()
        if MAGNITUDE in parts[name]
    }
    # ComfyUI would only log such a patch, while it samples, and leave the weight as it is; or broadcast it.
    for name, key in found.items():
        check_shapes(name, parts[name], key, shapes, title)
        if key in patches and not _works(patches[key], key, shapes[key]):
            raise ValueError(
                f"Expected a kind of LoRA that this ComfyUI applies, got {name} with "
                f"{first_of(list(parts[name]))} in {title}, which it would skip. Choose another file."
            )
    without_place = [key for key in patches if key not in shapes]  # a bias where the model has none
    missing = [name for name in parts if name not in found] + without_place
    missing += [f"{name}.rescale" for name in found if _loses_rescale(parts[name])]
    kept = {key: patch for key, patch in patches.items() if key in shapes}
    return kept, Matched(len(found), missing)


def found_once(parts: Mapping[str, State], names: Mapping[str, str], title: str) -> dict[str, str]:
    """The keys of the weights by the names of a LoRA's modules. Raises ValueError if one is named twice."""
    # An alpha alone changes nothing.
    found = {name: names[name] for name in parts if name in names and parts[name].keys() != {"alpha"}}
    taken: dict[str, str] = {}
    for name, key in found.items():
        biased = any(part in parts[name] for part in BIASES)
        for place in (key, _bias_of(key)) if biased else (key,):
            other = taken.setdefault(place, name)
            if other != name:
                raise ValueError(
                    f"Expected one change for each weight of the model, got two for {place} in {title}: "
                    f"{first_of([other])} and {first_of([name])}. Save one of them alone."
                )
    return found


def _bias_of(key: str) -> str:
    """Where ComfyUI's loader puts the bias of a module."""
    return f"{key.removesuffix('.weight')}.bias"


def with_magnitude(patch: object, name: str, parts: State, title: str) -> PeftDora:
    """PEFT's DoRA from ComfyUI's patch of its two factors. Raises ValueError for a mixture of kinds."""
    if not parts.keys() <= {*PAIR, "alpha", MAGNITUDE}:
        raise ValueError(
            f"Expected one kind of change for {name}, got {first_of(list(parts))} in {title}. Save the LoRA "
            "again."
        )
    return PeftDora(patch.loaded_keys, (*patch.weights, parts[MAGNITUDE]))


def check_shapes(
    name: str, parts: State, key: str, shapes: Mapping[str, torch.Size], title: str
) -> None:
    """Raise ValueError unless a module's parts can change its weight and its bias."""
    if not fits(parts, shapes[key]):
        raise _another_size(name, parts, shapes[key], title)
    if wrong := wrong_scale(parts, shapes[key]):
        raise ValueError(
            f"Expected {wrong} for {name} in {title}. It is damaged, or written by a tool that shapes it "
            "otherwise; save it again."
        )
    for part, bias in ((part, shapes.get(_bias_of(key))) for part in BIASES if part in parts):
        if bias is not None and parts[part].shape != bias:
            raise ValueError(
                f"Expected a LoRA for this model, in which the bias of {name} is {_size(bias)}, got {title}, "
                f"made for {_size(parts[part].shape)}. Connect the kind of model that it was trained on, or "
                "choose another file."
            )


def _another_size(name: str, parts: State, shape: torch.Size, title: str) -> ValueError:
    made = change_shape(parts)
    return ValueError(
        f"Expected a LoRA for this model, in which {name} is {_size(shape)}, got {title}, made for "
        f"{'another size' if made is None else _size(made)}. Connect the kind of model that it was trained "
        "on, or choose another file."
    )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _loses_rescale(parts: State) -> bool:
    """Whether a module of OFT scales rows, which ComfyUI does not apply, unlike that of BOFT."""
    return "rescale" in parts and parts["oft_blocks"].ndim == 3 and bool((parts["rescale"] != 1).any())


def _works(patch: object, key: str, shape: torch.Size) -> bool:
    """Whether ComfyUI's code takes a patch whose shapes are right."""
    # Turning depends on values, which the tensors of the trial do not have.
    if not isinstance(patch, WeightAdapterBase) or isinstance(patch, OFTAdapter | BOFTAdapter):
        return True
    # The patch hands on its change only if it has the shape of the weight.
    reached = []

    def change(difference: Tensor) -> Tensor:
        reached.append(difference.shape)
        return difference

    try:
        patch.calculate_weight(torch.empty(shape, device="meta"), key, 1.0, 1.0, None, change)
    except Exception:  # what has no shape that ComfyUI expects fails there in any way
        return False
    return bool(reached)


def add_patches(model: ModelPatcher, patches: Mapping[str, object], strength: Callable[[str], float]) -> None:
    """Add patches to a model, each with the strength of its key."""
    # Grouped, because ComfyUI takes one strength per call, and every call reads all weights of the model.
    by_strength: dict[float, dict[str, object]] = defaultdict(dict)
    for key, patch in patches.items():
        by_strength[strength(key)][key] = patch
    for value, chosen in by_strength.items():
        model.add_patches(chosen, value)
