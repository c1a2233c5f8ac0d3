"""What has changed since an earlier run whose numbers were written with `--json`."""
from __future__ import annotations

import json
from pathlib import Path

from .labels import LABELS
from .markdown import markdown

Numbers = dict[str, object]


def read_numbers(path: Path) -> Numbers:
    """The numbers of an earlier run.

    Raises:
        ValueError: the file is missing, or was not written by this command.
    """
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected numbers of an earlier run in {path}, got an error: {error}") from error
    if not isinstance(numbers, dict) or not isinstance(numbers.get("intervals"), dict):
        raise ValueError(f"Expected a file written by --json, got {path} without measures and intervals.")
    return numbers


def changes_table(now: Numbers, before: Numbers) -> str:
    """Every measure that both runs have, before and now; clear = their 95% intervals do not overlap."""
    rows = []
    for name, (low, high) in now["intervals"].items():
        if name in before["intervals"]:
            low_before, high_before = before["intervals"][name]
            change = now[name] - before[name]
            clear = "clear" if low > high_before or high < low_before else ""
            points = f"{change * 100:+.1f} points"
            rows.append([LABELS[name], f"{before[name]:.1%}", f"{now[name]:.1%}", points, clear])
    return markdown(["measure", "before", "now", "change", ""], rows)
