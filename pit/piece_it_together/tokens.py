"""What travels between the nodes: IP+ tokens, and the reference encodings of the same encoder."""
from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..files.records import Made

STRONGEST = 2.0
MOST_BYTES = 400_000_000  # of new sets at once: a few letters can ask for thousands of copies


@dataclass(frozen=True)
class Tokens(Made):
    """A batch of IP+ tokens, one set per picture or concept.

    Attributes:
        values: `[B, 16, D]`.
        uncond: tokens of an all-zero pixel tensor (a gray picture) `[1, 16, D]`, for SDXL's negative branch.
        features: what the resampler made them from, `[B, N, E]`; None unless a picture was encoded.
    """

    values: Tensor
    uncond: Tensor
    features: Tensor | None = None

    @property
    def width(self) -> int:
        return self.values.shape[-1]


@dataclass(frozen=True)
class Parts(Made):
    """An ordered set of part slots for the IP-Prior.

    Attributes:
        slots: tokens of each slot `[P, 16, D]`; a white slot holds the empty tokens.
        empty: tokens of the white picture `[1, 16, D]`.
        uncond: as in `Tokens`.
        negative: what guidance leads away from in each slot `[P, 16, D]`; None = empty tokens in all.
        reference: whether the first slot is the slot of a reference.
    """

    slots: Tensor
    empty: Tensor
    uncond: Tensor
    negative: Tensor | None = None
    reference: bool = False

    @property
    def width(self) -> int:
        return self.slots.shape[-1]

    def sequence(self, count: int, order_seeds: Sequence[int] | None = None) -> Tensor:
        """The prior's condition for `count` concepts: `[count, 16 P, D]`.

        With `order_seeds`, concept i sees the slots in an order that its own seed decides: see `slot_order`.
        Raises ValueError unless there is one seed for each concept.
        """
        return self._sequence_of(self.slots, count, order_seeds)

    def negative_sequence(self, count: int, order_seeds: Sequence[int] | None = None) -> Tensor:
        """What guidance leads away from, like `sequence` and in the same order: `[count, 16 P, D]`."""
        # In the same order, or guidance would also lead away from the order.
        return self._sequence_of(self._negative_slots(), count, order_seeds)

    def slot_order(self, seed: int) -> list[int]:
        """The slots, counted from 0, in a random order.

        As in the layout of the published inference, a reference stays first and the white slots that fill up
        stay last: the empty ones at the end, unless guidance leads away from something there.
        """
        first, end = int(self.reference), len(self.slots)
        while end > first and self._is_empty(end - 1):
            end -= 1
        order = list(range(first, end))
        random.Random(seed).shuffle(order)
        return [*range(first), *order, *range(end, len(self.slots))]

    def weighed(self, slot: int, weight: float) -> Parts:
        """The same parts with another weight for the part in one slot, counted from 0.

        From 0 to 2 the slot lies on the line from the empty tokens through the part: at 0 it is empty, at 1
        it is the part, at 2 it is twice as far from empty. Below 0 it is empty, and guidance leads away from
        the part with the weight's absolute value: "not like this".

        A second weight acts on what the first left in the slot: two positive ones multiply; a part that
        guidance leads away from stays so under a positive one, but is gone after another negative one.

        Raises:
            ValueError: there is no such slot, or the weight is not a number from -2 to 2.
        """
        # Written so that NaN, which compares as False, is refused.
        if not -STRONGEST <= weight <= STRONGEST:
            raise ValueError(f"Expected a part's weight between -2 and 2, got {weight}.")
        if not 0 <= slot < len(self.slots):
            raise ValueError(
                f"Expected a part from 1 to {len(self.slots)}, got {slot + 1}. Slots are counted from 1; a "
                "reference, if there is one, is the first."
            )
        weighed = torch.lerp(self.empty[0], self.slots[slot], abs(weight))
        if weight >= 0:
            return replace(self, slots=_with_slot(self.slots, slot, weighed))
        negative = _with_slot(self._negative_slots(), slot, weighed)
        return replace(self, slots=_with_slot(self.slots, slot, self.empty[0]), negative=negative)

    def _negative_slots(self) -> Tensor:
        return self.empty.expand_as(self.slots) if self.negative is None else self.negative

    def _is_empty(self, slot: int) -> bool:
        # Exact: empty slots are copies of the empty tokens, and a real part hardly ever equals them.
        return all(torch.equal(each[slot], self.empty[0]) for each in (self.slots, self._negative_slots()))

    def _sequence_of(self, slots: Tensor, count: int, order_seeds: Sequence[int] | None) -> Tensor:
        if order_seeds is None:
            return slots.flatten(0, 1).expand(count, -1, -1)
        if len(order_seeds) != count:
            raise ValueError(f"Expected one seed for each of {count} concepts, got {len(order_seeds)}.")
        return torch.stack([slots[self.slot_order(seed)].flatten(0, 1) for seed in order_seeds])


def _with_slot(slots: Tensor, slot: int, tokens: Tensor) -> Tensor:
    changed = slots.clone()
    changed[slot] = tokens
    return changed


def picked(tokens: Tokens, numbers: Iterable[int]) -> Tokens:
    """The sets of tokens with these numbers, counted from 1, in the given order, with repetitions.

    Raises ValueError at the first number without a set, and for more sets than there is room for.
    """
    count, places = len(tokens.values), []
    held = [each for each in (tokens.values, tokens.features) if each is not None]
    # One by one: a range that a user types may be endless, and reading stops at the first number too high.
    for number in numbers:
        if not 1 <= number <= count:
            raise ValueError(f"Expected numbers of concepts from 1 to {count}, got {number}.")
        places.append(number - 1)
        check_room(len(places), *held)
    features = None if tokens.features is None else tokens.features[places]
    return replace(tokens, values=tokens.values[places], features=features)


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


def joined(batches: Sequence[Tokens], source: str) -> Tokens:
    """Several batches as one, in their order. Raises ValueError if they are not of one IP-Adapter."""
    check_same_adapter(*batches)
    for parts in ([each.values for each in batches], [each.features for each in batches]):
        if all(part is not None for part in parts):
            distinct = {id(part): part.nbytes for part in parts}
            check_room(sum(map(len, parts)), parts[0], present=sum(distinct.values()))
    done = derived(batches, torch.cat([batch.values for batch in batches]), source)
    if any(batch.features is None for batch in batches):
        return done
    return replace(done, features=torch.cat([batch.features for batch in batches]))


def difference_added(base: Tensor, plus: Tensor, minus: Tensor, amount: float) -> Tensor:
    """`base + amount * (plus - minus)`: what makes one concept differ from another, given to a third.

    Args:
        base, plus, minus: `[B, 16, D]`; a batch of one is paired with all of the others.
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
    """The mean of all sets, `[B, 16, D]` -> `[1, 16, D]`; with `keep_length` it has their mean length."""
    # A plain mean is shorter than the sets, the more so the less they have in common.
    mean = tokens.mean(dim=0, keepdim=True)
    if not keep_length:
        return mean
    return mean * (_lengths(tokens).mean() / _lengths(mean).clamp(min=1e-12))


def derived(sources: Sequence[Tokens], values: Tensor, source: str) -> Tokens:
    """Tokens made from others, with their sources in the notes and without features.

    Only those notes are kept that are the same in all sources.
    """
    adapter = next((each.adapter for each in sources if each.adapter), "")
    shared = set.intersection(*(set(each.notes.items()) for each in sources))
    notes = {name: value for name, value in sources[0].notes.items() if (name, value) in shared}
    notes |= {"made by": source} | {f"from {i}": each.source for i, each in enumerate(sources, 1)}
    return Tokens(values, sources[0].uncond, source=source, adapter=adapter, notes=notes)


def check_same_adapter(*batches: Tokens) -> None:
    """Raise ValueError unless all tokens have one width and, as far as is known, one IP-Adapter."""
    first = batches[0]
    for other in batches[1:]:
        if other.width != first.width or first.of_another_adapter(other):
            raise ValueError(
                f"Expected tokens of one IP-Adapter, got those from {first.source} (width {first.width}) and "
                f"those from {other.source} (width {other.width}), which belong to different IP-Adapters. "
                "Make all with the same one."
            )


def blend(first: Tensor, second: Tensor, amounts: Sequence[float], spherical: bool) -> Tensor:
    """Sets of tokens between those of `first` and `second`: 0 is the first, 1 the second.

    Args:
        first, second: `[B, 16, D]`, paired one by one; a batch of one is paired with all of the other.
        amounts: each gives one set for each pair.
        spherical: along the arc between the two instead of the straight line; see `slerp`.
    Returns:
        `[len(amounts) * B, 16, D]`: all pairs at the first amount, then all at the second, and so on.
    Raises:
        ValueError: the widths differ, or the batches are of different sizes and neither is one.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"Expected tokens of one width, got width {first.shape[-1]} in first and {second.shape[-1]} in "
            "second. Take both from the same IP-Adapter or IP-Prior."
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
    """Spherical linear interpolation (Shoemake 1985) of each set as one vector: `[B, 16, D]` from two such.

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
    return torch.linalg.vector_norm(sets, dim=(1, 2), keepdim=True)
