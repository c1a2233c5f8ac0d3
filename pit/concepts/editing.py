"""Concepts of either kind, and the directions in their spaces: found between them, and applied to them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from ..files.records import answers_differ
from .concepts import C, Concepts, check_same_space, derived
from .directions import Direction, Separation, apply_amounts, measured_direction


def check_moves(direction: Direction, concepts: Concepts) -> None:
    """Raise ValueError unless a direction lies in a space of these concepts and, as far as is known, of
    their IP-Adapter or image encoder.
    """
    if direction.space not in concepts.direction_spaces():
        raise ValueError(
            f"Expected a direction for {concepts.what}, as from {concepts.source}, got {direction.source} in "
            f"{direction.space} space. Find one between two kinds of such concepts."
        )
    # Width alone does not tell: concepts of another model may have the same one and mean something else.
    if concepts.of_another_adapter(direction):
        raise ValueError(
            f"Expected a direction for the IP-Adapter of the tokens from {concepts.source} "
            f"({concepts.adapter}), got {direction.source} for another one ({direction.adapter}). Use a "
            "direction and tokens of the same IP-Adapter, or find the direction again."
        )
    if answers_differ(direction.negative, concepts.encoder_answer):
        raise ValueError(
            f"Expected a direction for the image encoder of the embeddings from {concepts.source}, got "
            f"{direction.source} for another one. Use a direction and embeddings of the same encoder."
        )


def between(
    first: C, second: C, method: str, source: str, on_fold: Callable[[], None] = lambda: None
) -> tuple[Direction, Separation]:
    """The direction from one kind of concepts to another, and how well it separates them.

    Raises ValueError as `measured_direction`, and for kinds that do not lie in one space.
    """
    check_same_space(first, second)
    space = first.direction_spaces()[0]
    adapter = next((each.adapter for each in (first, second) if each.adapter), "")
    sets = (as_sets(each.values).float().cpu() for each in (first, second))
    direction, found = measured_direction(*sets, method, space, source, adapter, on_fold)
    answers = (each.encoder_answer for each in (first, second))
    answer = next((each.float().cpu() for each in answers if each is not None), None)
    notes = {**direction.notes, "first": first.source, "second": second.source}
    return replace(direction, negative=answer, notes=notes), found


def moved(concepts: C, direction: Direction, amounts: Sequence[float], source: str) -> C:
    """Concepts at every amount along a direction in their space, in the order of `apply_amounts`.

    Raises ValueError as `apply_direction`, and for more concepts than there is room for.
    """
    values = concepts.values
    found = apply_amounts(as_sets(values), direction.values, amounts)
    return derived([concepts], found.reshape(-1, *values.shape[1:]), source)


def as_sets(values: Tensor) -> Tensor:
    """The vectors of concepts as sets `[B, T, D]`, of one vector each for `[B, D]`."""
    return values.reshape(len(values), -1, values.shape[-1])
