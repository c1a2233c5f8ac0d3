"""The parts of a concept, laid out in slots for the IP-Prior."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..files.records import Made

STRONGEST = 2.0


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
