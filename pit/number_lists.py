"""Lists of numbers as people type them: "0, 0.5, 1", "-1 to 1 in 5" and "1, 4, 7-9"."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator

from .messages import ShortError, quoted

_NUMBER_OR_RANGE = re.compile(r"(\d{1,18})(?:\s*-\s*(\d{1,18}))?")
_EVEN_STEPS = re.compile(r"(\S+)\s+to\s+(\S+)\s+in\s+(\d{1,4})")
MOST_LETTERS = 10_000
MOST_AMOUNTS = 256  # each becomes a picture, so a typing error must not fill the memory
LARGEST_AMOUNT = 1000.0


def amounts_in(text: str) -> list[float]:
    """At most 256 amounts from 0 to 1, separated by commas. Raises ValueError for anything else."""
    items = _items(text, "0, 0.5, 1")
    if len(items) > MOST_AMOUNTS:
        raise ValueError(f"Expected at most {MOST_AMOUNTS} amounts at once, got {len(items)}.")
    return [_amount(item, text) for item in items]


def edit_amounts_in(text: str) -> list[float]:
    """Amounts of an edit, of either sign, and even steps such as "-1 to 1 in 5", separated by commas.

    Raises ValueError for anything else, for amounts beyond 1000, and for more than 256 of them.
    """
    amounts: list[float] = []
    for item in _items(text, "-1, -0.5, 0, 0.5, 1"):
        steps = _EVEN_STEPS.fullmatch(item)
        if steps is None:
            amounts.append(_edit_amount(item, text))
            continue
        first, last, count = _edit_amount(steps[1], text), _edit_amount(steps[2], text), int(steps[3])
        if not 2 <= count <= MOST_AMOUNTS:
            raise ValueError(
                f"Expected a number of even steps from 2 to {MOST_AMOUNTS}, got {count} in {quoted(item)}."
            )
        # The last amount is added as typed: first + (last - first) can miss it by a rounding error.
        amounts += [first + (last - first) * step / (count - 1) for step in range(count - 1)] + [last]
    if len(amounts) > MOST_AMOUNTS:
        raise ValueError(f"Expected at most {MOST_AMOUNTS} amounts at once, got {len(amounts)}.")
    return amounts


def numbers_in(text: str) -> Iterator[int]:
    """Whole numbers and ranges of them, separated by commas, one by one in the order given.

    Raises ValueError for anything else, and for a range that runs backwards.
    """
    for item in _items(text, "1, 4, 7-9"):
        match = _NUMBER_OR_RANGE.fullmatch(item)
        if match is None:
            raise ValueError(
                f"Expected numbers and ranges such as '1, 4, 7-9', got {quoted(item)} in {quoted(text)}."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"Expected a range that counts up, such as '{last}-{first}', got {item!r}.")
        # Generated rather than listed: "1-999999999" costs nothing, and the caller stops at the first number
        # that it does not have.
        yield from range(first, last + 1)


def _items(text: str, example: str) -> list[str]:
    # A list of a megabyte costs minutes, long before any number in it is used.
    if len(text) > MOST_LETTERS:
        raise ShortError(
            f"Expected at most {MOST_LETTERS} characters of numbers, got {len(text)}. Remove some."
        )
    if not text.strip():
        raise ValueError(f"Expected numbers separated by commas, such as '{example}', got nothing.")
    return [item.strip() for item in text.split(",")]


def _amount(item: str, text: str) -> float:
    try:
        amount = float(item)
    except ValueError:
        raise ValueError(
            f"Expected numbers such as '0, 0.5, 1', got {quoted(item)} in {quoted(text)}."
        ) from None
    if not 0 <= amount <= 1:
        raise ValueError(f"Expected an amount between 0 (the first) and 1 (the second), got {item[:40]}.")
    return amount


def _edit_amount(item: str, text: str) -> float:
    try:
        amount = float(item)
    except ValueError:
        amount = math.nan
    # Negated, because every comparison with NaN is false: NaN and infinity are refused here as well.
    if not abs(amount) <= LARGEST_AMOUNT:
        raise ValueError(
            f"Expected amounts such as '-1, 0, 1' or '-1 to 1 in 5', none beyond {LARGEST_AMOUNT:g}, got "
            f"{quoted(item)} in {quoted(text)}."
        )
    return amount
