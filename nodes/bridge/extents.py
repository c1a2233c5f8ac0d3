"""Which part of the picture each row of a batch shows: all of it, the area of a prompt, or a tile.

ComfyUI and most packs that work in tiles cut, with the latents, the conditions that have their shape. So a
condition tells of each latent pixel where it lies; and where it was not cut, the latents themselves tell.
"""
from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from comfy.conds import CONDRegular
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from .errors import InputProblem

EXTENTS = "piece_it_together_extents"
MOST_CORNERS = 64  # latents of one color have the corner of a tile everywhere

# The latents of the guider's call that is running, and their extents `[1, 4, H, W]`.
running_latents: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar(EXTENTS, default=None)


class ConditionExtents(CONDRegular):
    """For each latent pixel its place and the size of the whole picture `[1, 4, H, W]`."""

    @classmethod
    def of(cls, size: Sequence[int], device: torch.device) -> ConditionExtents:
        """Those of a whole picture."""
        height, width = size
        down = torch.arange(height, device=device)[:, None].expand(height, width)
        right = torch.arange(width, device=device)[None].expand(height, width)
        whole = torch.full_like(down, height), torch.full_like(down, width)
        return cls(torch.stack([down, right, *whole])[None])

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: Any) -> ConditionExtents:
        cut = self.cond
        if area is not None:
            for side in range(2):
                cut = cut.narrow(2 + side, area[2 + side], area[side])
        return self._copy_with(cut.expand(batch_size, -1, -1, -1))

    def in_context_window(self, window: Any) -> ConditionExtents:
        """For a context window of ComfyUI, which may cut the picture as well as the batch."""
        if window.dim not in (2, 3):
            return self
        places = list(window.index_list)
        if places != list(range(places[0], places[0] + len(places))):
            raise InputProblem(
                "Apply IP+ Tokens expected context windows of neighboring rows or columns of the picture for "
                f"its mask, got one of {places[:8]}. Use the schedule standard_static with stride 1, or "
                "disconnect the mask."
            )
        return self._copy_with(self.cond.narrow(window.dim, places[0], len(places)))


def note_latents(
    executor: WrapperExecutor, model: object, conds: Sequence[Sequence[dict] | None], x: Tensor, *more: Any
) -> list[Tensor]:
    """A wrapper of `calc_cond_batch`: what tiles of its latents can be found in."""
    carried = (each["model_conds"] for prompt in conds for each in prompt or ())
    extents = next((each[EXTENTS].cond for each in carried if EXTENTS in each), None)
    before = running_latents.set(None if extents is None else (x, extents))
    try:
        return executor(model, conds, x, *more)
    finally:
        running_latents.reset(before)


def fits(extents: Tensor | None, count: int, x: Tensor) -> bool:
    """Whether extents are those of so many rows of these latents, and not of ones that they were cut from."""
    return extents is not None and len(extents) == count and extents.shape[-2:] == x.shape[-2:]


def windows_in_call(x: Tensor) -> Tensor:
    """Of each row of a model call, where the part begins that it shows, and the size of the picture `[B, 4]`.

    Raises ValueError if that cannot be told.
    """
    known = running_latents.get()
    if known is None:
        raise InputProblem(
            "Apply IP+ Tokens expected a model call by a guider, with its conditions, got one without, so "
            "that nothing tells which part of the mask it is for. Another pack's node leaves them out: take "
            "it out of the graph, or disconnect the mask."
        )
    latents, extents = known
    return placed(x, latents, extents[..., 0, 0].expand(len(latents), -1))


def placed(x: Tensor, latents: Tensor, windows: Tensor) -> Tensor:
    """The windows of tiles `[R, ...]`, found by their values in the latents `[B, ...]` of these windows.

    Raises ValueError if a tile is in none of them, or in several places.
    """
    if x.shape[-2:] == latents.shape[-2:] and (windows == windows[:1]).all():
        return windows[:1].expand(len(x), -1)
    of_latents, found = windows.tolist(), []
    for tile in x:
        places = {
            (top + y, left + x, height, width)
            for row, y, x in corners(tile, latents) for top, left, height, width in [of_latents[row]]
        }
        if len(places) != 1:
            raise InputProblem(
                f"Apply IP+ Tokens expected the latents of the picture, of {size_of(latents)}, or tiles of "
                f"them, got some of {size_of(x)} that are not in them or in several places, so that nothing "
                "tells which part of the mask they are for. Another pack's node changes them: take it out of "
                "the graph, or disconnect the mask."
            )
        found.append(places.pop())
    return torch.tensor(found, device=x.device)


def corners(tile: Tensor, latents: Tensor) -> list[tuple[int, int, int]]:
    """Number, top and left of all latents `[B, C, H, W]` that hold a tile `[C, h, w]`."""
    height, width = tile.shape[-2:]
    down, right = latents.shape[-2] - height + 1, latents.shape[-1] - width + 1
    if min(down, right) < 1 or len(tile) != latents.shape[1]:
        return []
    alike = (latents[..., :down, :right] == tile[:, :1, :1]).all(1).nonzero()
    if len(alike) > MOST_CORNERS:
        return []
    return [
        (row, y, x) for row, y, x in alike.tolist()
        if torch.equal(latents[row, :, y:y + height, x:x + width], tile)
    ]


def size_of(latents: Tensor) -> str:
    """How messages tell it."""
    return f"{latents.shape[-1]}x{latents.shape[-2]}"
