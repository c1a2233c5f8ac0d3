"""Patches that share the slot of a cross-attention with those of other packs.

ComfyUI lets one patch replace the attention of a layer. Ours calls the patch that it found there for the
text, and adds to its result; packs that stack on a patch by its `add`, as IPAdapter_plus does, find one.
"""
from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

Kind = TypeVar("Kind")


def is_active(sigmas: Tensor, start: float, end: float) -> Tensor:
    """Whether a step lies between two sigmas, as a tensor."""
    # Not as a bool: reading a value back makes the CPU wait for all work that the GPU still has to do, in
    # every layer and step, and it breaks the graph of torch.compile.
    return (sigmas[0] <= start) & (sigmas[0] >= end)


def chosen_attention(q: Tensor, k: Tensor, v: Tensor, options: dict, mask: Tensor | None = None) -> Tensor:
    """The attention that ComfyUI has chosen for this machine, called as its own layers call it."""
    return optimized_attention(
        q, k, v, options["n_heads"], mask=mask, attn_precision=options["attn_precision"],
        transformer_options=options,
    )


def as_it_is(patch: Callable | None) -> Callable | None:
    """A patch to keep: what others add later to the one in the slot of another clone stays out of it."""
    # Clones share the patches in their tables, and those that take additions, as IPAdapter_plus makes them,
    # keep these in lists of their own.
    if not hasattr(patch, "add") or not hasattr(patch, "__dict__"):
        return patch
    twin = copy.copy(patch)
    vars(twin).update({name: list(value) for name, value in vars(patch).items() if isinstance(value, list)})
    return twin


class SharedSlot:
    """A patch of one cross-attention: `attended` for the text, what it adds itself, then `with_added`."""

    # Why this slot: image tokens have keys and values of their own but share the queries, so the patch has to
    # act after `to_q` and before `to_out`. ComfyUI's other hooks come before the one or after the other.

    def __init__(self, patcher: ModelPatcher, previous: Callable | None):
        """`patcher` of what it computes with, `previous` the patch in the slot."""
        self.patcher = patcher
        self.previous = as_it_is(previous)
        self.added: list[tuple[Callable, dict]] = []

    def attended(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        """Attention to the text, by the patch below this one if there is one."""
        return (self.previous or chosen_attention)(q, k, v, options)

    def with_added(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        """The result with what other packs add."""
        for callback, settings in self.added:
            active = is_active(options["sigmas"], settings["sigma_start"], settings["sigma_end"])
            # Chosen by value, not by `if`, for the reasons given in `is_active`.
            out = torch.where(active, out + callback(out, q, k, v, options, **settings), out)
        # What others add may be in float32, which `to_out` of a half-precision model does not take.
        return out.to(q.dtype)

    def add(self, callback: Callable, **options) -> None:
        """Let another pack add `callback(out, q, k, v, extra_options, **options)` between its own sigmas."""
        self.added.append((callback, options))

    def copy(self: Kind) -> Kind:
        """The same patch with a list of its own of what others added."""
        twin = copy.copy(self)
        twin.added = list(self.added)
        return twin

    def models(self) -> list[ModelPatcher]:
        """The managed weights that ComfyUI has to load together with the model."""
        # ComfyUI only sees the patch in the slot, so calls are passed on to the one below, here and in `to`
        # and `cleanup`, if it has these methods: a plain function has none.
        return [self.patcher, *(self.previous.models() if hasattr(self.previous, "models") else ())]

    def to(self: Kind, device_or_dtype: torch.device | torch.dtype) -> Kind:
        """ComfyUI calls this before sampling and when it frees the model, with a device and with a dtype."""
        if hasattr(self.previous, "to"):
            self.previous = self.previous.to(device_or_dtype)
        return self

    def cleanup(self) -> None:
        """ComfyUI calls this after sampling; ours keeps nothing until then, but the one below it may."""
        if hasattr(self.previous, "cleanup"):
            self.previous.cleanup()


def held_in(patch: object, kind: type[Kind]) -> Kind | None:
    """A patch of this kind, or the one that another pack's patch holds and so can call."""
    if isinstance(patch, kind):
        return patch
    held = [cell.cell_contents for cell in getattr(patch, "__closure__", None) or ()]
    held += [*getattr(patch, "args", ()), *getattr(patch, "__dict__", {}).values()]
    return next((each for each in held if isinstance(each, kind)), None)


def attention_patches(model: ModelPatcher, attention: str = "attn2") -> dict[tuple, Callable]:
    """The patches in the cross-attention of a model, or in its self-attention, ours and those of others."""
    return model.model_options["transformer_options"].get("patches_replace", {}).get(attention, {})


def separate_patches(original: ModelPatcher, clone: ModelPatcher) -> None:
    """Give a clone patches of its own."""
    # ComfyUI copies the tables of a clone, but not the patches in them: without this, what a pack adds to
    # those of the clone would reach the original, and every other clone.
    patches = attention_patches(clone)
    for key, patch in patches.items():
        if isinstance(patch, SharedSlot):
            patches[key] = patch.copy()
