"""Tables in Markdown."""
from __future__ import annotations

from collections.abc import Iterable, Sequence


def reached(yes: bool) -> str:
    """What a table says behind a bar."""
    return "reached" if yes else "MISSED"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a header, in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
