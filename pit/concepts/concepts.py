"""Batches of concepts, whatever they are made of: picked from, joined, blended, and computed with.

A concept is a set of vectors: the IP+ tokens of a picture, or its one embedding.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ..files.records import Made

MOST_BYTES = 400_000_000  # of new sets at once: a few letters can ask for thousands of copies


@dataclass(frozen=True)
class Concepts(Made, ABC):
    """A batch of concepts in one space.

    Attributes:
        values: `[B, T, D]` for sets of vectors, `[B, D]` for single ones.
        what: what messages call them.
    """

    values: Tensor
    what: ClassVar[str] = "IP+ tokens or image embeddings"

    @property
    def width(self) -> int:
        return self.values.shape[-1]

    def rows(self) -> dict[str, Tensor]:
        """What belongs to the single concepts, by attribute, each `[B, ...]`."""
        return {"values": self.values}

    @abstractmethod
    def check_alike(self, other: Concepts) -> None:
        """Raise ValueError unless others of this class lie in the same space, as far as is known."""

    @abstractmethod
    def direction_spaces(self) -> tuple[str, ...]:
        """The spaces of directions that move these. Raises ValueError if none can."""

    @property
    def encoder_answer(self) -> Tensor | None:
        """What tells the image encoder behind these vectors `[1, D]`; None = not known."""
        return None

    def inherited(self, sources: Sequence[Concepts]) -> Mapping[str, Any]:
        """The attributes of what is made from these, where they are not those of the first."""
        return {}


C = TypeVar("C", bound=Concepts)


def picked(concepts: C, numbers: Iterable[int]) -> C:
    """The concepts with these numbers, counted from 1, in the given order, with repetitions.

    Raises ValueError at the first number without a concept, and for more of them than there is room for.
    """
    count, places, held = len(concepts.values), [], concepts.rows()
    # One by one: a range that a user types may be endless, and reading stops at the first number too high.
    for number in numbers:
        if not 1 <= number <= count:
            raise ValueError(f"Expected numbers of concepts from 1 to {count}, got {number}.")
        places.append(number - 1)
        check_room(len(places), *held.values())
    return replace(concepts, **{name: each[places] for name, each in held.items()})


def check_room(sets: int, *like: Tensor, present: int = 0) -> None:
    """Raise ValueError if so many sets, each like those of a batch `[B, ...]`, would fill the memory.

    Args:
        present: bytes that are in memory anyway, besides those of one batch.
    """
    for batch in like:
        room = max(MOST_BYTES, batch.nbytes, present)
        if sets * batch[0].nbytes > room:
            raise ValueError(
                f"Expected at most {room // batch[0].nbytes} concepts of this size at once, got {sets} or "
                "more. Ask for fewer of them."
            )


def joined(batches: Sequence[C], source: str) -> C:
    """Several batches as one, in their order. Raises ValueError if they do not lie in one space."""
    check_same_space(*batches)
    held = [batch.rows() for batch in batches]
    parts = {name: [each[name] for each in held] for name in held[0] if all(name in each for each in held)}
    for found in parts.values():
        distinct = {id(part): part.nbytes for part in found}
        check_room(sum(map(len, found)), found[0], present=sum(distinct.values()))
    done = derived(batches, batches[0].values, source)
    return replace(done, **{name: torch.cat(found) for name, found in parts.items()})


def difference_added(base: Tensor, plus: Tensor, minus: Tensor, amount: float) -> Tensor:
    """`base + amount * (plus - minus)`: what makes one concept differ from another, given to a third.

    Args:
        base, plus, minus: `[B, ...]`; a batch of one is paired with all of the others.
    Raises:
        ValueError: the batches are of different sizes, and not all of the smaller ones hold one.
    """
    sizes = {len(each) for each in (base, plus, minus)} - {1}
    if len(sizes) > 1:
        raise ValueError(
            f"Expected as many concepts in each input, or one, got {len(base)}, {len(plus)} and "
            f"{len(minus)}. Pick as many of each, or single ones."
        )
    return base + amount * (plus - minus)


def average(tokens: Tensor, keep_length: bool) -> Tensor:
    """The mean of all concepts, `[B, ...]` -> `[1, ...]`; with `keep_length` it has their mean length."""
    # A plain mean is shorter than the sets, the more so the less they have in common.
    mean = tokens.mean(dim=0, keepdim=True)
    if not keep_length:
        return mean
    return mean * (_lengths(tokens).mean() / _lengths(mean).clamp(min=1e-12))


def derived(sources: Sequence[C], values: Tensor, source: str) -> C:
    """Concepts made from others, with their sources in the notes.

    Only those notes are kept that are the same in all sources.
    """
    adapter = next((each.adapter for each in sources if each.adapter), "")
    shared = set.intersection(*(set(each.notes.items()) for each in sources))
    notes = {name: value for name, value in sources[0].notes.items() if (name, value) in shared}
    notes |= {"made by": source} | {f"from {i}": each.source for i, each in enumerate(sources, 1)}
    kept = sources[0].inherited(sources)
    return replace(sources[0], values=values, source=source, adapter=adapter, notes=notes, **kept)


def check_same_kind(*batches: Concepts) -> None:
    """Raise ValueError for IP+ tokens together with image embeddings."""
    first = batches[0]
    for other in batches[1:]:
        if type(other) is not type(first):
            raise ValueError(
                f"Expected concepts of one kind, got {first.what} from {first.source} and {other.what} from "
                f"{other.source}. Make tokens of the embeddings first, or keep the two apart."
            )


def check_same_space(*batches: Concepts) -> None:
    """Raise ValueError unless all are of one kind and, as far as is known, lie in one space."""
    check_same_kind(*batches)
    for other in batches[1:]:
        batches[0].check_alike(other)


def blend(first: Tensor, second: Tensor, amounts: Sequence[float], spherical: bool) -> Tensor:
    """Concepts between those of `first` and `second`: 0 is the first, 1 the second.

    Args:
        first, second: `[B, ...]`, paired one by one; a batch of one is paired with all of the other.
        amounts: each gives one set for each pair.
        spherical: along the arc between the two instead of the straight line; see `slerp`.
    Returns:
        `[len(amounts) * B, ...]`: all pairs at the first amount, then all at the second, and so on.
    Raises:
        ValueError: the widths differ, or the batches are of different sizes and neither is one.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"Expected concepts of one width, got width {first.shape[-1]} in first and {second.shape[-1]} in "
            "second. Take both from the same IP-Adapter, IP-Prior or image encoder."
        )
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(
            f"Expected as many concepts in second as in first, or one in either, got {len(first)} in first "
            f"and {len(second)} in second. Pick as many of one as of the other, or a single one."
        )
    first, second = torch.broadcast_tensors(first, second)
    check_room(len(amounts) * len(first), first)
    between = slerp if spherical else torch.lerp
    return torch.cat([between(first, second, amount) for amount in amounts])


def slerp(first: Tensor, second: Tensor, amount: float) -> Tensor:
    """Spherical linear interpolation (Shoemake 1985) of each concept as one vector: `[B, ...]` from two such.

    The direction turns at an even pace, and the length changes evenly.
    """
    # In the middle of a straight line a vector is shorter than those at its ends. The angle is twice the
    # arctangent of difference over sum: the arc cosine loses half its digits for nearly parallel vectors.
    length_a, length_b = _lengths(first), _lengths(second)
    a, b = first / length_a, second / length_b
    angle = 2 * torch.atan2(_lengths(a - b), _lengths(a + b))
    length, sine = torch.lerp(length_a, length_b, amount), angle.sin()
    share_a, share_b = ((1 - amount) * angle).sin() / sine, (amount * angle).sin() / sine
    turned = length / length_a * share_a * first + length / length_b * share_b * second
    # Parallel vectors leave nothing to turn, opposite ones have no single way to turn, zero no direction.
    return torch.where(sine > 1e-4, turned, torch.lerp(first, second, amount))


def _lengths(sets: Tensor) -> Tensor:
    return torch.linalg.vector_norm(sets, dim=tuple(range(1, sets.ndim)), keepdim=True)
