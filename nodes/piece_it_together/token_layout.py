"""Which tokens each row of a model call reads, laid out once for all of its layers."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from ...pit.ip_adapter.attention import tokens_for_rows
from ..bridge.rows import ROWS, FollowedPatches, RowConditions

# One name for all that we leave in a model: our wrappers, callbacks and attachment, and our entry in the
# options of each call. Another pack's things under its own name stay untouched.
PATCH_KEY = "piece_it_together"


def is_active(sigmas: Tensor, start: float, end: float) -> Tensor:
    """Whether a step lies between two sigmas, as a tensor."""
    # Not as a bool: reading a value back makes the CPU wait for all work that the GPU still has to do, in
    # every layer and step, and it breaks the graph of torch.compile.
    return (sigmas[0] <= start) & (sigmas[0] >= end)


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
# What is laid out for the model call that is running, for layers whose options another pack has made anew.
running: ContextVar[LaidOut] = ContextVar(PATCH_KEY)


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
        self, executor: Callable[..., Tensor], x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor | None, control: dict | None, transformer_options: dict, **conditions,
    ) -> Tensor:
        """A wrapper of `BaseModel.apply_model`."""
        self.check(transformer_options)
        rows = self.conditions.rows(conditions.pop(ROWS, None), transformer_options, x, c_crossattn)
        laid_out = [each.for_call(rows, transformer_options["sigmas"]) for each in self.applied]
        # New options: in the given ones, what is laid out here would show up in every later call that shares
        # them.
        transformer_options = followed({**transformer_options, PATCH_KEY: laid_out})
        before = running.set(laid_out)
        try:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conditions)
        finally:
            running.reset(before)


def followed(options: dict) -> dict:
    """Options whose patches before the cross-attention, if any, tell what they do to the rows."""
    patches = options.get("patches", {})
    if not patches.get("attn2_patch"):
        return options
    return {**options, "patches": {**patches, "attn2_patch": [FollowedPatches(patches["attn2_patch"])]}}


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
    raise ValueError(
        f"Apply IP+ Tokens expected queries for the {len(tokens)} rows of the batch, got {len(queries)}, and "
        "nothing that tells which is which. Another pack's node (for regional prompts, say) changes them in "
        "the attention: apply the tokens after it, or take it out of the graph."
    )
