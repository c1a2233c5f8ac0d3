"""JSON from files that others may have written: any fault is a ValueError, and its depth is bounded."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .whole import read_small

MOST_LEVELS = 32
MOST_DIGITS = 20


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError or ValueError."""
    return parse_json(read_small(path).decode("utf-8-sig"))  # as Windows writes it, too


def parse_json(text: str) -> Any:
    """Plain values from JSON, nested at most 32 deep. Raises ValueError."""
    try:
        content = json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise ValueError(f"expected at most {MOST_LEVELS} levels of JSON, got many more") from error
    level = [content]
    # Not only as deep as Python can read: what is read is compared and written as well, by recursion.
    for _ in range(MOST_LEVELS):
        level = [child for each in level for child in _children(each)]
        if not level:
            return content
    raise ValueError(f"expected at most {MOST_LEVELS} levels of JSON, got more")


def _whole(digits: str) -> int:
    # Arithmetic with longer ones fails with errors of other kinds.
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"expected numbers of at most {MOST_DIGITS} digits, got one of {len(digits)}")
    return int(digits)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
