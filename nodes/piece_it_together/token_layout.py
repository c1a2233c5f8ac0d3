"""Which tokens each row of a model call reads, laid out once for all of its layers."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ...pit.ip_adapter.attention import tokens_for_rows
from ...pit.ip_adapter.regions import Size, coverage, grids, resampled
from ..bridge.errors import InputProblem
from ..bridge.extents import EXTENTS, fits, placed, windows_in_call
from ..bridge.following import FollowedModel, followed, is_wrapped, places, with_last
from ..bridge.rows import ROWS, RowConditions, spread
from ..bridge.slots import is_active

# One name for all that we leave in a model: our wrappers, callbacks and attachment, and our entry in the
# options of each call. Another pack's things under its own name stay untouched.
PATCH_KEY = "piece_it_together"


class LaidOut(NamedTuple):
    """What the layers read of one Apply IP+ Tokens in a model call of B rows.

    Attributes:
        tokens: `[B, 16, D]`.
        scale: of each layer `[L]`, as it is at this step.
        masks: for each grid that layers may have, how much of each cell the mask covers `[B, h, w]`; () for
            all of the picture.
    """

    tokens: Tensor
    scale: Tensor
    masks: tuple[Tensor, ...] = ()

    def of_rows(self) -> list[Tensor]:
        """All that may be another one for each row."""
        return [self.tokens, *self.masks]

    def for_queries(self, queries: Tensor, rows: Tensor | None) -> LaidOut:
        """The same for the queries of one layer `[R, N, C]`.

        Args:
            rows: the row of the call that each row of the queries was `[R]`, where another pack changed them.
        Raises:
            ValueError: there is another number of queries, and nothing tells which they are.
        """
        if rows is None and len(queries) == len(self.tokens):
            return self
        if rows is None:
            rows = torch.full((len(queries),), -1, device=self.tokens.device)
        return self._replace(
            tokens=moved(self.tokens, rows, [self]),
            masks=tuple(moved(mask, rows, [self]) for mask in self.masks),
        )

    def scale_at(self, layer: int, options: dict) -> Tensor:
        """What one layer multiplies with, in a call with these options: a number, or `[B, N, 1]`."""
        scale = self.scale[layer]
        if not self.masks:
            return scale
        grid = options["activations_shape"][-2:]
        known = [mask for mask in self.masks if tuple(mask.shape[1:]) == tuple(grid)]
        # Patches such as Kohya's Deep Shrink give layers grids of their own.
        mask = known[0] if known else resampled(self.masks[0], grid)
        return scale * mask.flatten(1).unsqueeze(-1)


def moved(what: Tensor, where: Tensor, laid_out: Sequence[LaidOut]) -> Tensor:
    """What belongs to each row, for rows that were in other places before; ValueError where nothing tells."""
    if (where >= 0).all():
        return what[where]
    if all((each == each[:1]).all() for each in of_rows(laid_out)):
        return what[:1].expand(len(where), *what.shape[1:])
    raise InputProblem(
        f"Apply IP+ Tokens expected queries for the {len(what)} rows of the batch, got {len(where)}, and "
        "nothing that tells which is which. Another pack's node (for regional prompts, say) changes them on "
        "their way: apply the tokens after it, or take it out of the graph."
    )


class AppliedTokens:
    """The tokens of one Apply IP+ Tokens, and when, where and how much they act."""

    def __init__(
        self, tokens: Tensor, uncond: Tensor, weights: Tensor, sigma_start: float, sigma_end: float,
        mask: Tensor | None = None,
    ):
        """`weights` of each layer `[L]`; `mask` `[M, H, W]`, one for all images or one each."""
        # Kept beside the copies on the device, so that going back costs no transfer.
        self.given = tokens, uncond, weights, mask
        self.tokens, self.uncond, self.weights, self.mask = self.given
        self.sigmas = sigma_start, sigma_end

    def for_call(self, rows: Tensor, sigmas: Tensor, size: Size) -> LaidOut:
        """What the layers read in a model call with these rows, of latents of this size."""
        device = rows.device
        negative, images = rows[:, :2].unbind(1)
        tokens = tokens_for_rows(self.tokens.to(device), self.uncond.to(device), negative, images)
        # A factor of zero outside of start and end, so that every step runs the same operations.
        scale = self.weights.to(device) * is_active(sigmas, *self.sigmas)
        if self.mask is None:
            return LaidOut(tokens, scale)
        mask = self.mask.to(device)
        if len(mask) > 1:
            mask = mask[images % len(mask)]
        return LaidOut(tokens, scale, tuple(coverage(mask, rows[:, 2:], size, grid) for grid in grids(size)))

    def to(self, device_or_dtype: torch.device | torch.dtype) -> AppliedTokens:
        """ComfyUI calls this before sampling and when it frees the model, with a device and with a dtype."""
        # The dtype is not followed: each layer casts the tokens to that of its queries.
        if isinstance(device_or_dtype, torch.device):
            self.tokens, self.uncond, self.weights, self.mask = (
                None if each is None else each.to(device_or_dtype) for each in self.given)
        return self


Batch = tuple[Tensor, Tensor | None, Tensor | None]  # latents, texts, and pooled texts with sizes
# What is laid out for the model call that is running, for layers whose options another pack has made anew.
running: ContextVar[list[LaidOut]] = ContextVar(PATCH_KEY)


class Structure:
    """What is laid out for the running model call, as a text: see `apply_tokens.TokenAttention`."""

    text = ""


structure = Structure()


class KnownCall(NamedTuple):
    """A model call as the guider has made it."""

    rows: Tensor
    laid_out: list[LaidOut]
    batch: Batch


class TokenLayout:
    """Lays out the tokens of all Apply IP+ Tokens once per call of the model.

    It wraps that call, and so runs outside of what torch.compile sees: inside, the order of the rows would
    be baked into the graph, because ComfyUI's own node compiles without guards on `transformer_options`. What
    the layers need travels in these options, as tensors.
    """

    def __init__(
        self, conditions: RowConditions, applied: Sequence[AppliedTokens], check: Callable[[dict], None]
    ):
        """`check` raises ValueError if the options of a call do not hold our patches any more."""
        self.conditions, self.check = conditions, check
        self.applied = tuple(applied)
        self.masked = any(each.mask is not None for each in self.applied)

    def __call__(
        self, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor | None, control: dict | None, transformer_options: dict, **conditions,
    ) -> Tensor:
        """A wrapper of `BaseModel.apply_model`."""
        rows = self.rows(conditions, transformer_options, x, c_crossattn)
        batch = x, c_crossattn, conditions.get("y")
        known = KnownCall(rows, self.laid_out(rows, transformer_options, x), batch)
        # The rows go on with the call: wrappers of other packs that cut or repeat the batch do so with all
        # conditions, and so with them.
        onwards = with_last(executor, partial(self.at_the_model, known))
        return onwards.execute(
            x, t, c_concat, c_crossattn, control, transformer_options, **conditions | {ROWS: rows})

    def rows(self, conditions: dict, options: dict, x: Tensor, text: Tensor | None) -> Tensor:
        """The rows of a call `[B, 2]`; with masks also the window of each, see `coverage` `[B, 6]`."""
        given, extents = conditions.get(ROWS), conditions.get(EXTENTS)
        given = None if given is None else given[:, :2]
        if not self.masked:
            return self.conditions.rows(given, options, x, text)
        if given is not None and fits(extents, len(given), x):
            return self.conditions.rows(with_windows(given, extents), options, x, text)
        return torch.cat([self.conditions.rows(given, options, x, text), windows_in_call(x)], 1)

    def at_the_model(
        self, known: KnownCall, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor | None, control: dict | None, transformer_options: dict, **conditions,
    ) -> Tensor:
        """The same behind all wrappers of other packs, which may have changed the call."""
        given, extents = conditions.pop(ROWS, None), conditions.pop(EXTENTS, None)
        batch = x, c_crossattn, conditions.get("y")
        rows = self.arrived(known, given, extents, batch)
        laid_out = known.laid_out if rows is known.rows else self.laid_out(rows, transformer_options, x)
        before, outer = running.set(laid_out), structure.text
        structure.text = described(laid_out)
        try:
            options = self.options_with(laid_out, rows, transformer_options, executor.class_obj)
            return executor(x, t, c_concat, c_crossattn, control, options, **conditions)
        finally:
            structure.text = outer
            running.reset(before)

    def arrived(
        self, known: KnownCall, given: Tensor | None, extents: Tensor | None, batch: Batch
    ) -> Tensor:
        """The rows of a batch that others may have changed, with them or not."""
        x, text, _ = batch
        if given is not None and given is not known.rows and not torch.equal(given, known.rows):
            rows = spread(given.to(x.device), len(x), text)
        else:
            where = places(known.batch, batch, of_rows(known.laid_out))
            if len(x) == len(known.rows) or (where >= 0).all():
                rows = rows_at(known.rows, known.laid_out, where)
            else:
                rows = spread(known.rows, len(x), text)
        if not self.masked or x.shape[-2:] == known.batch[0].shape[-2:]:
            return rows
        if fits(extents, len(x), x):
            return with_windows(rows[:, :2], extents)
        return torch.cat([rows[:, :2], placed(x, known.batch[0], known.rows[:, 2:])], 1)

    def options_with(
        self, laid_out: list[LaidOut], rows: Tensor, options: dict, model: BaseModel | None
    ) -> dict:
        """The options of a call of this model with what its layers read."""
        def late(others: dict, x: Tensor, where: Tensor | None) -> dict:
            self.check(others)
            now, before = rows_at(rows, laid_out, where), following.before[0]
            if self.masked and x.shape[-2:] != before.shape[-2:]:
                now = torch.cat([now[:, :2], placed(x, before, rows[:, 2:])], 1)
            return {**others, PATCH_KEY: laid_out if now is rows else self.laid_out(now, others, x)}

        self.check(options)
        # New options: in the given ones, what is laid out here would show up in every later call that shares
        # them.
        options = {**options, PATCH_KEY: laid_out}
        if not is_wrapped(model, options):
            return followed(options)
        following = FollowedModel(of_rows(laid_out), late)
        return following.around(options, PATCH_KEY)

    def laid_out(self, rows: Tensor, options: dict, x: Tensor) -> list[LaidOut]:
        """What the layers read in a model call with these rows and latents."""
        size = x.shape[-2], x.shape[-1]
        return [each.for_call(rows, options["sigmas"], size) for each in self.applied]


def with_windows(rows: Tensor, extents: Tensor) -> Tensor:
    """Rows `[B, 2]` with their windows `[B, 6]`, as extents of the same latents tell them."""
    return torch.cat([rows, extents[..., 0, 0].to(rows)], 1)


def of_rows(laid_out: Sequence[LaidOut]) -> list[Tensor]:
    """All that may be another one for each row of a call."""
    return [tensor for each in laid_out for tensor in each.of_rows()]


def rows_at(rows: Tensor, laid_out: Sequence[LaidOut], where: Tensor | None) -> Tensor:
    """The rows of a batch whose rows were in other places before, as `places` tells them."""
    return rows if where is None else moved(rows, where, laid_out)


def described(laid_out: Sequence[LaidOut]) -> str:
    """All that a compiled graph takes for constant."""
    return str([len(each.masks) for each in laid_out])
