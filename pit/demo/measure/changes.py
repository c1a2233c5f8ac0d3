"""What has changed since an earlier run whose numbers were written with `--json`."""
from __future__ import annotations

import json
from pathlib import Path

from .catalog import LABELS, unit_of
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
            clear = "clear" if low > high_before or high < low_before else ""
            unit = unit_of(name)
            numbers = unit.text(before[name]), unit.text(now[name]), unit.difference(now[name] - before[name])
            rows.append([LABELS[name], *numbers, clear])
    return markdown(["measure", "before", "now", "change", ""], rows)
