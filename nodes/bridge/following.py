"""Where the rows of a batch go on their way to an attention, past the wrappers and patches of other packs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn

from .rows import ROWS

NEAR = 0.25  # of the distance to the farthest row: within it, a row may be the same one
UNSURE = 0.25  # how far from its mark a row may be shown
Inputs = tuple[Tensor, Tensor, Tensor]
Wrapper = Callable[..., Tensor]


def with_last(executor: WrapperExecutor, wrapper: Wrapper) -> WrapperExecutor:
    """What comes after the wrapper that was given this executor, with one more wrapper behind all others."""
    # A node after ours adds its wrapper behind ours, and may change there what ours would have to know.
    after = [*executor.wrappers[executor.idx + 1:], wrapper]
    return WrapperExecutor.new_class_executor(executor.original, executor.class_obj, after)


def places(
    before: Sequence[Tensor | None], after: Sequence[Tensor | None], read: Sequence[Tensor]
) -> Tensor | None:
    """The place that each row of a batch had before a wrapper `[R]`; None if all stayed, -1 if nothing tells.

    Args:
        before, after: latents, texts and others `[B, ...]` and `[R, ...]`, whose values tell the rows apart.
        read: what belongs to each row before `[B, ...]`: between rows for which it is the same, it does not
            matter which of them it was.
    """
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if all(a is b for a, b in pairs):
        return None
    tables = [equal_rows(a, b) for a, b in pairs if a.shape[1:] == b.shape[1:]]
    tables.append(similar_rows(*pairs[0]))
    # Values that are new in any row, such as those of cropped latents, tell nothing.
    tables = [table for table in tables if table.any(1).all()]
    count = len(pairs[0][1])
    if not tables:
        return torch.full((count,), -1, device=pairs[0][1].device)
    alike = torch.stack(tables).all(0)
    if count == alike.shape[1] and alike.diagonal().all():
        return None
    first = alike.long().argmax(1)
    same = torch.stack([equal_rows(each, each) for each in read]).all(0).to(alike.device)
    told = alike.any(1) & ~(alike & ~same[first]).any(1)
    return torch.where(told, first, -1)


def equal_rows(before: Tensor, after: Tensor) -> Tensor:
    """Which rows have the same values `[R, B]`, in the precision of those that came after."""
    before = before.to(after)
    return torch.stack([(before == row).flatten(1).all(1) for row in after])


def similar_rows(before: Tensor, after: Tensor) -> Tensor:
    """Which latents may be the same but for rounding or a small change, or a tile of them `[R, B]`."""
    before = before.to(after)
    if before.shape[1:] == after.shape[1:]:
        far = torch.cdist(after.flatten(1).float(), before.flatten(1).float())
        return far < NEAR * far.amax(1, keepdim=True)
    if before.shape[1] != after.shape[1]:
        return torch.zeros(len(after), len(before), dtype=torch.bool, device=after.device)
    corner = after.flatten(2)[:, None, :, :1]
    return (before.flatten(2)[None] == corner).all(2).any(2)


class FollowedModel:
    """Two wrappers of the diffusion model, around those of other packs and within them, for one call.

    Such wrappers may change the batch, and the patches of the attention, after our own wrapper of the call.
    """

    def __init__(self, read: Sequence[Tensor], moved: Callable[[dict, Tensor, Tensor], dict]):
        """
        Args:
            read: what belongs to each row of the call `[B, ...]`.
            moved: makes the options for a batch from those of the call, its latents, and the places that
                its rows had before.
        """
        self.read, self.moved = read, moved
        self.before: tuple[Tensor | None, ...] = ()

    def around(self, options: dict, key: str) -> dict:
        """Options with both wrappers."""
        wrappers = options.get("wrappers", {})
        others = wrappers.get(WrappersMP.DIFFUSION_MODEL, {})
        both = {f"{key} first": [self.first], **others, f"{key} last": [self.last]}
        return {**options, "wrappers": {**wrappers, WrappersMP.DIFFUSION_MODEL: both}}

    def first(
        self, executor: WrapperExecutor, x: Tensor, timesteps: Tensor, context: Tensor | None = None,
        y: Tensor | None = None, *more: Any, **named: Any,
    ) -> Tensor:
        """Notes the batch as it comes from ComfyUI."""
        self.before = x, context, y
        return executor(x, timesteps, context, y, *more, **named)

    def last(
        self, executor: WrapperExecutor, x: Tensor, timesteps: Tensor, context: Tensor | None = None,
        y: Tensor | None = None, control: dict | None = None, transformer_options: dict | None = None,
        **named: Any,
    ) -> Tensor:
        """Tells the layers where the batch that the model gets came from."""
        where = places(self.before, (x, context, y), self.read)
        options = followed(self.moved(transformer_options or {}, x, where))
        return executor(x, timesteps, context, y, control, options, **named)


def is_wrapped(model: BaseModel | None, options: dict) -> bool:
    """Whether another pack wraps the diffusion model of a model in this call, or replaces its `forward`."""
    # Not always, so that nothing of ours comes into what torch.compile sees without need.
    wrappers = options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {})
    return any(wrappers.values()) or (model is not None and is_replaced(model.diffusion_model))


def is_replaced(module: nn.Module) -> bool:
    """Whether a module has a `forward` that is not its own."""
    forward = vars(module).get("forward")  # ComfyUI leaves its own one there when it takes back a patch
    return forward is not None and getattr(forward, "__func__", None) is not type(module).forward


def followed(options: dict) -> dict:
    """Options whose patches before the cross-attention, if any, tell what they do to the rows."""
    patches = options.get("patches", {})
    if not patches.get("attn2_patch"):
        return options
    return {**options, "patches": {**patches, "attn2_patch": [FollowedPatches(patches["attn2_patch"])]}}


class FollowedPatches:
    """Another pack's patches before a cross-attention, with a note of the row that each row of theirs was.

    Nodes for regional prompts give an image several rows there, one for each region's text, and add the
    results up after the attention.
    """

    def __init__(self, patches: Sequence[Callable]):
        self.patches = list(patches)

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, options: dict) -> Inputs:
        """Queries before their projection `[B, N, C]`, and what keys and values are made of."""
        before = n, context, value, options
        after = self._run(*before)
        options[ROWS] = self._rows(before, after[0])
        return after

    def _run(self, n: Tensor, context: Tensor, value: Tensor, options: dict) -> Inputs:
        for patch in self.patches:
            n, context, value = patch(n, context, value, options)
        return n, context, value

    def _rows(self, before: tuple, after: Tensor) -> Tensor | None:
        """The number that each row had before `[R]`; None if all stayed, -1 for what cannot be told."""
        n = before[0]
        if after is n:
            return None
        if after.shape[1:] == n.shape[1:]:
            alike = (after[:, None, 0] == n[None, :, 0]).all(-1)
            rows = alike.long().argmax(1)
            if (alike.sum(1) == 1).all() and torch.equal(n[rows], after):
                return rows
        # Rows may be equal before the first text has been read, whatever places they have taken, and queries
        # may be changed besides: so the patches show once more what they do, on rows of which each has a
        # channel of its own.
        count, channels = len(n), n.shape[-1]
        if count > channels:
            return torch.full((len(after),), -1, device=n.device)
        marks = torch.eye(count, channels).to(n)
        marked = marks[:, None].expand_as(n).clone()
        shown = self._run(marked, *before[1:3], dict(before[3]))[0]
        rows = shown.mean(1).argmax(1).clamp(max=count - 1)
        told = (shown - marks[rows][:, None]).abs().flatten(1).amax(1) < UNSURE
        return torch.where(told, rows, -1)
