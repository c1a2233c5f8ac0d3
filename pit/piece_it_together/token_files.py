"""Directions and tokens as files: ours in safetensors that say what is in them, and the published directions.

Layouts: `ip_direction.pt` `[16, 2048]` and `clip_direction.pt` `[257, 1280]`, bare tensors, as
github.com/eladrich/PiT writes them; ours are described at `save_direction` and `save_tokens`.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..files.known import what_is
from ..files.records import KIND, check_finite, made_by, number
from ..files.weights import WeightFileError, read_state, write_state
from ..ip_adapter.resampler import TOKENS_PER_PICTURE
from .directions import CLIP_SPACE, TOKEN_SPACE, Direction
from .tokens import Tokens

StrPath = str | os.PathLike[str]

DIRECTION, TOKENS = "direction", "tokens"


def save_direction(path: StrPath, direction: Direction) -> None:
    """Write a direction: one tensor `direction`, and what is known of it in the metadata.

    Raises:
        WeightFileError: the file cannot be written.
    """
    facts = direction.metadata(DIRECTION) | {"space": direction.space}
    for name in ("deviation", "recommended"):
        value = getattr(direction, name)
        if value is not None:
            facts[name] = repr(value)
    write_state(path, {DIRECTION: direction.values.float().contiguous()}, facts)


def read_direction(path: StrPath, name: str) -> Direction:
    """A direction of ours, or one bare tensor `[16, D]` or `[N, E]`, also with a batch of one in front.

    Of a bare tensor the shape tells the space: 16 rows are tokens.

    Args:
        name: what messages call the file.
    Raises:
        WeightFileError: damaged, a pickle of more than tensors, or anything but a direction.
    """
    path = Path(path)
    state, facts = read_state(path)
    if len(state) != 1:
        what, advice = what_is(state)
        raise WeightFileError(f"{path} is {what}; expected an edit direction. {advice}")
    key, values = next(iter(state.items()))
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2 or not values.is_floating_point() or min(values.shape) < 2:
        raise WeightFileError(
            f"{path}: {key} is {values.dtype} of the shape {list(values.shape)}, expected an edit direction: "
            f"numbers of the shape [{TOKENS_PER_PICTURE}, D] of token space or [N, E] of CLIP space."
        )
    check_finite(path, key, values)
    if facts.get(KIND) == DIRECTION:
        amounts = (number(path, amount, facts) for amount in ("deviation", "recommended"))
        return Direction(values.float(), _space(path, facts), *amounts, **made_by(path, facts, name))
    space = TOKEN_SPACE if len(values) == TOKENS_PER_PICTURE else CLIP_SPACE
    return Direction(values.float(), space, source=name)


def save_tokens(path: StrPath, tokens: Tokens) -> None:
    """Write tokens: `values` and `uncond`, and where they come from in the metadata.

    Raises:
        WeightFileError: the file cannot be written.
    """
    state = {"values": tokens.values, "uncond": tokens.uncond}
    if tokens.features is not None:
        state["features"] = tokens.features
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_state(path, state, tokens.metadata(TOKENS))


def read_tokens(path: StrPath, name: str) -> Tokens:
    """Tokens that `save_tokens` has written.

    Raises:
        WeightFileError: damaged, or another file.
    """
    path = Path(path)
    state, facts = read_state(path)
    if facts.get(KIND) != TOKENS or not {"values", "uncond"} <= state.keys():
        what, advice = what_is(state)
        raise WeightFileError(f"{path} is {what}; expected tokens as Save IP+ Tokens writes them. {advice}")
    values, uncond, features = state["values"], state["uncond"], state.get("features")
    if values.ndim != 3 or not len(values) or uncond.shape != (1, *values.shape[1:]):
        raise WeightFileError(
            f"{path} holds values of the shape {list(values.shape)} and uncond of the shape "
            f"{list(uncond.shape)}, expected [B, 16, D] and [1, 16, D]. Save the tokens again."
        )
    if features is not None and (features.ndim != 3 or len(features) != len(values)):
        raise WeightFileError(
            f"{path} holds features of the shape {list(features.shape)} for {len(values)} sets of tokens, "
            f"expected [{len(values)}, N, E]. Save the tokens again."
        )
    for key, value in state.items():
        check_finite(path, key, value)
    features = None if features is None else features.float()
    return Tokens(values.float(), uncond.float(), features, **made_by(path, facts, name))


def _space(path: Path, facts: Mapping[str, str]) -> str:
    if facts.get("space") not in (TOKEN_SPACE, CLIP_SPACE):
        raise WeightFileError(
            f"{path} says that it lies in {facts.get('space')!r} space, expected {TOKEN_SPACE!r} or "
            f"{CLIP_SPACE!r}. Save the direction again."
        )
    return facts["space"]
