"""Files of directions and tokens: ours, safetensors that say what they hold, and the published directions.

Published layouts: `ip_direction.pt` `[16, 2048]` and `clip_direction.pt` `[257, 1280]`, bare tensors, as
github.com/eladrich/PiT writes them. Ours are described in `save_direction` and `save_tokens`.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..files.checked import StrPath, another_file, without_wrappers
from ..files.records import KIND, check_finite, made_by, number, write_made
from ..files.weights import WeightFileError, read_state
from ..ip_adapter.resampler import TOKENS_PER_PICTURE
from ..messages import quoted
from .directions import CLIP_SPACE, EMBEDDING_SPACE, TOKEN_SPACE, Direction
from .tokens import Tokens

MEASURED = ("deviation", "recommended")
DIRECTION, TOKENS, NEGATIVE = "direction", "tokens", "negative"
# How many vectors a direction has in a space; any number of them in the others.
VECTORS = {TOKEN_SPACE: TOKENS_PER_PICTURE, EMBEDDING_SPACE: 1}


def save_direction(path: StrPath, direction: Direction) -> None:
    """Write a direction: a tensor `direction`, `negative` if known, and in the metadata what else is known.

    Raises:
        WeightFileError: the file cannot be written.
    """
    # The shortest texts that read back as the very same numbers.
    found = {name: getattr(direction, name) for name in MEASURED}
    known = {name: repr(value) for name, value in found.items() if value is not None}
    tensors = {DIRECTION: direction.values, NEGATIVE: direction.negative}
    write_made(path, direction, DIRECTION, tensors, {"space": direction.space, **known})


def read_direction(path: StrPath, name: str) -> Direction:
    """A direction of ours, or one bare tensor `[16, D]` or `[N, E]`, also with a batch dimension of one.

    The shape of a bare tensor tells its space: 16 rows are tokens.

    Args:
        name: what messages call the file.
    Raises:
        WeightFileError: damaged, a pickle of more than tensors, or not a direction.
    """
    path = Path(path)
    state, facts = read_state(path)
    ours = facts.get(KIND) == DIRECTION
    negative = state.pop(NEGATIVE, None) if ours and len(state) == 2 else None
    if len(state) != 1:
        raise another_file(path, state, "an edit direction")
    key, values = next(iter(state.items()))
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    least = 1 if ours and facts.get("space") == EMBEDDING_SPACE else 2
    if values.ndim != 2 or not values.is_floating_point() or 0 in values.shape or min(values.shape) < least:
        raise WeightFileError(
            f"{path}: expected an edit direction, floating-point numbers of the shape "
            f"[{TOKENS_PER_PICTURE}, D] in token space or [N, E] in CLIP space, got {values.dtype} of the "
            f"shape {list(values.shape)} for {key}. Choose another file."
        )
    check_finite(path, key, values)
    if not ours:
        # A published direction is a bare tensor that does not say whose it is: no IP-Adapter is known here.
        space = TOKEN_SPACE if len(values) == TOKENS_PER_PICTURE else CLIP_SPACE
        return Direction(values.float(), space, source=name)
    space, vectors = _space(path, facts), VECTORS.get(facts["space"], len(values))
    if len(values) != vectors:
        raise WeightFileError(
            f"{path}: expected a direction in {space} space to have {vectors} rows, got {len(values)}. Save "
            "the direction again."
        )
    amounts = (number(path, amount, facts) for amount in MEASURED)
    return Direction(
        values.float(), space, *amounts, _negative(path, values, negative), **made_by(path, facts, name))


def _negative(path: Path, values: Tensor, negative: Tensor | None) -> Tensor | None:
    """What tells the encoder of a direction among embeddings; WeightFileError if it cannot belong to it."""
    if negative is None:
        return None
    if negative.shape != values.shape:
        raise WeightFileError(
            f"{path}: expected {NEGATIVE} of the shape {list(values.shape)}, as the direction has it, got "
            f"{list(negative.shape)}. Save the direction again."
        )
    check_finite(path, NEGATIVE, negative)
    return negative.float()


def save_tokens(path: StrPath, tokens: Tokens) -> None:
    """Write tokens: `values`, `uncond` and, where known, `features`; in the metadata where they come from.

    Raises:
        ValueError: they are not of an IP-Adapter-plus, whose tokens alone can be read again.
        WeightFileError: the file cannot be written.
    """
    if tokens.values.shape[1] != TOKENS_PER_PICTURE:
        raise ValueError(
            f"Expected {TOKENS_PER_PICTURE} tokens of each picture to save, got {tokens.values.shape[1]} "
            f"from {tokens.source}. Save what they were made of instead."
        )
    tensors = {"values": tokens.values, "uncond": tokens.uncond, "features": tokens.features}
    write_made(path, tokens, TOKENS, tensors, {})


def read_tokens(path: StrPath, name: str) -> Tokens:
    """Tokens that `save_tokens` has written.

    Raises:
        WeightFileError: damaged, or another kind of file.
    """
    path = Path(path)
    state, facts = read_state(path)
    state = without_wrappers(state)
    # The names of the tensors do not suffice: without the metadata nothing tells whose tokens they are.
    if facts.get(KIND) != TOKENS or not {"values", "uncond"} <= state.keys():
        raise another_file(path, state, "IP+ tokens with all tensors and their metadata")
    values, uncond, features = state["values"], state["uncond"], state.get("features")
    whole = values.ndim == 3 and 0 not in values.shape and values.shape[1] == TOKENS_PER_PICTURE
    if not whole or uncond.shape != (1, *values.shape[1:]):
        raise WeightFileError(
            f"{path}: expected values of the shape [B, {TOKENS_PER_PICTURE}, D] and uncond of the shape "
            f"[1, {TOKENS_PER_PICTURE}, D], got {list(values.shape)} and {list(uncond.shape)}. Save the "
            "tokens again."
        )
    if features is not None and (features.ndim != 3 or len(features) != len(values) or 0 in features.shape):
        raise WeightFileError(
            f"{path}: expected features of the shape [{len(values)}, N, E], for as many sets of tokens, got "
            f"{list(features.shape)}. Save the tokens again."
        )
    for key, value in state.items():
        check_finite(path, key, value)
    features = None if features is None else features.float()
    return Tokens(values.float(), uncond.float(), features, **made_by(path, facts, name))


def _space(path: Path, facts: Mapping[str, str]) -> str:
    if facts.get("space") not in (TOKEN_SPACE, CLIP_SPACE, EMBEDDING_SPACE):
        raise WeightFileError(
            f"{path}: expected {TOKEN_SPACE!r}, {CLIP_SPACE!r} or {EMBEDDING_SPACE!r} as its space, got "
            f"{quoted(facts.get('space'))}. Save the direction again."
        )
    return facts["space"]
