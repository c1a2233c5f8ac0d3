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
from ..bridge.errors import InputProblem
from ..bridge.following import FollowedModel, followed, is_wrapped, places, with_last
from ..bridge.rows import ROWS, RowConditions, spread
from ..bridge.slots import is_active

# One name for all that we leave in a model: our wrappers, callbacks and attachment, and our entry in the
# options of each call. Another pack's things under its own name stay untouched.
PATCH_KEY = "piece_it_together"


class AppliedTokens:
    """The tokens of one Apply IP+ Tokens, and when and how much they act."""

    def __init__(self, tokens: Tensor, uncond: Tensor, weight: float, sigma_start: float, sigma_end: float):
        # Kept beside the copies on the device, so that going back costs no transfer.
        self.given = tokens, uncond
        self.tokens, self.uncond = self.given
        self.weight = weight
        self.sigmas = sigma_start, sigma_end

    def for_call(self, rows: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens for the rows of a model call `[B, 16, D]`, and their scale at this step."""
        negative, images = rows.unbind(1)
        tokens = tokens_for_rows(self.tokens.to(rows.device), self.uncond.to(rows.device), negative, images)
        # A factor of zero outside of start and end, so that every step runs the same operations.
        return tokens, self.weight * is_active(sigmas, *self.sigmas)

    def to(self, device_or_dtype: torch.device | torch.dtype) -> AppliedTokens:
        """ComfyUI calls this before sampling and when it frees the model, with a device and with a dtype."""
        # The dtype is not followed: each layer casts the tokens to that of its queries.
        if isinstance(device_or_dtype, torch.device):
            self.tokens, self.uncond = (tokens.to(device_or_dtype) for tokens in self.given)
        return self


LaidOut = list[tuple[Tensor, Tensor]]
Batch = tuple[Tensor, Tensor | None, Tensor | None]  # latents, texts, and pooled texts with sizes
# What is laid out for the model call that is running, for layers whose options another pack has made anew.
running: ContextVar[LaidOut] = ContextVar(PATCH_KEY)


class KnownCall(NamedTuple):
    """A model call as the guider has made it."""

    rows: Tensor
    laid_out: LaidOut
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

    def __call__(
        self, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor | None, control: dict | None, transformer_options: dict, **conditions,
    ) -> Tensor:
        """A wrapper of `BaseModel.apply_model`."""
        rows = self.conditions.rows(conditions.get(ROWS), transformer_options, x, c_crossattn)
        batch = x, c_crossattn, conditions.get("y")
        known = KnownCall(rows, self.laid_out(rows, transformer_options), batch)
        # The rows go on with the call: wrappers of other packs that cut or repeat the batch do so with all
        # conditions, and so with them.
        onwards = with_last(executor, partial(self.at_the_model, known))
        return onwards.execute(
            x, t, c_concat, c_crossattn, control, transformer_options, **conditions | {ROWS: rows})

    def at_the_model(
        self, known: KnownCall, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor | None, control: dict | None, transformer_options: dict, **conditions,
    ) -> Tensor:
        """The same behind all wrappers of other packs, which may have changed the call."""
        given, batch = conditions.pop(ROWS, None), (x, c_crossattn, conditions.get("y"))
        laid_out = self.arrived(known, given, batch, transformer_options)
        before = running.set(laid_out)
        try:
            options = self.options_with(laid_out, transformer_options, executor.class_obj)
            return executor(x, t, c_concat, c_crossattn, control, options, **conditions)
        finally:
            running.reset(before)

    def arrived(self, known: KnownCall, given: Tensor | None, batch: Batch, options: dict) -> LaidOut:
        """What the layers read in a batch that others may have changed, and the rows with it, or not."""
        x, text, _ = batch
        if given is not None and given is not known.rows and not torch.equal(given, known.rows):
            return self.laid_out(spread(given.to(x.device), len(x), text), options)
        where = places(known.batch, batch, [tokens for tokens, _ in known.laid_out])
        if len(x) == len(known.rows) or (where >= 0).all():
            return moved(known.laid_out, x, where)
        return self.laid_out(spread(known.rows, len(x), text), options)

    def options_with(self, laid_out: LaidOut, options: dict, model: BaseModel | None) -> dict:
        """The options of a call of this model with what its layers read."""
        def late(others: dict, x: Tensor, where: Tensor | None) -> dict:
            self.check(others)
            return {**others, PATCH_KEY: moved(laid_out, x, where)}

        self.check(options)
        # New options: in the given ones, what is laid out here would show up in every later call that shares
        # them.
        options = {**options, PATCH_KEY: laid_out}
        if not is_wrapped(model, options):
            return followed(options)
        return FollowedModel([tokens for tokens, _ in laid_out], late).around(options, PATCH_KEY)

    def laid_out(self, rows: Tensor, options: dict) -> LaidOut:
        """What the layers read in a model call with these rows."""
        return [each.for_call(rows, options["sigmas"]) for each in self.applied]


def moved(laid_out: LaidOut, x: Tensor, where: Tensor | None) -> LaidOut:
    """The same for a batch whose rows were in other places before, as `places` tells them."""
    return [(tokens_for_queries(tokens, x, where), scale) for tokens, scale in laid_out]


def tokens_for_queries(tokens: Tensor, queries: Tensor, rows: Tensor | None) -> Tensor:
    """Tokens of a model call `[B, 16, D]` for the queries of one layer `[R, N, C]`.

    Args:
        rows: the row of the call that each row of the queries was `[R]`, where another pack changed them.
    Raises:
        ValueError: there is another number of queries, and nothing tells which they are.
    """
    if rows is None and len(queries) == len(tokens):
        return tokens
    if rows is not None and (rows >= 0).all():
        return tokens[rows]
    if (tokens == tokens[:1]).all():
        return tokens[:1].expand(len(queries), -1, -1)
    raise InputProblem(
        f"Apply IP+ Tokens expected queries for the {len(tokens)} rows of the batch, got {len(queries)}, and "
        "nothing that tells which is which. Another pack's node (for regional prompts, say) changes them on "
        "their way: apply the tokens after it, or take it out of the graph."
    )
