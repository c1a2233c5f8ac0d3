"""Lists of numbers as people type them: "0, 0.5, 1", "-1 to 1 in 5" and "1, 4, 7-9"."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator

_NUMBER_OR_RANGE = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")
_EVEN_STEPS = re.compile(r"(\S+)\s+to\s+(\S+)\s+in\s+(\d{1,4})")
MOST_AMOUNTS = 256
LARGEST_AMOUNT = 1000.0


def amounts_in(text: str) -> list[float]:
    """Amounts from 0 to 1, separated by commas. Raises ValueError for anything else."""
    return [_amount(item, text) for item in _items(text, "0, 0.5, 1")]


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
            raise ValueError(f"Even steps want a number from 2 to {MOST_AMOUNTS}, found {count} in {item!r}.")
        amounts += [first + (last - first) * step / (count - 1) for step in range(count - 1)] + [last]
    if len(amounts) > MOST_AMOUNTS:
        raise ValueError(f"At most {MOST_AMOUNTS} amounts can be given at once, found {len(amounts)}.")
    return amounts


def numbers_in(text: str) -> Iterator[int]:
    """Whole numbers and ranges of them, separated by commas, one by one and in their order.

    It counts a range out only as it is asked, so that whoever takes the numbers can end at one too high.
    Raises ValueError for anything else, and for a range that runs backwards.
    """
    for item in _items(text, "1, 4, 7-9"):
        match = _NUMBER_OR_RANGE.fullmatch(item)
        if match is None:
            raise ValueError(f"Expected numbers and ranges such as '1, 4, 7-9', found {item!r} in {text!r}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"The range {item!r} runs backwards; write '{last}-{first}'.")
        yield from range(first, last + 1)


def _items(text: str, example: str) -> list[str]:
    if not text.strip():
        raise ValueError(f"Expected numbers separated by commas, such as '{example}', found nothing.")
    return [item.strip() for item in text.split(",")]


def _amount(item: str, text: str) -> float:
    try:
        amount = float(item)
    except ValueError:
        raise ValueError(f"Expected numbers such as '0, 0.5, 1', found {item!r} in {text!r}.") from None
    if not 0 <= amount <= 1:
        raise ValueError(f"An amount must lie between 0 (the first) and 1 (the second), found {item}.")
    return amount


def _edit_amount(item: str, text: str) -> float:
    try:
        amount = float(item)
    except ValueError:
        amount = math.nan
    if not abs(amount) <= LARGEST_AMOUNT:
        raise ValueError(
            f"Expected amounts such as '-1, 0, 1' or '-1 to 1 in 5', none beyond {LARGEST_AMOUNT:g}, found "
            f"{item!r} in {text!r}."
        )
    return amount
