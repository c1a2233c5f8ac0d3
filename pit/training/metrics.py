"""The figures of a run: a CSV that survives resuming, and TensorBoard where its package is installed."""
from __future__ import annotations

import csv
import io
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.whole import clean_leftovers, write_whole
from .extras import Extras
from .validation import TIMES, Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE, BOARD = "metrics.csv", "TensorBoard"
FIELDS = ["step", "loss", "learning_rate", "validation", *(f"validation t={t:.3g}" for t in TIMES)]


@dataclass(frozen=True)
class Point:
    """One line of the CSV; None where nothing was measured."""

    step: int
    loss: float | None
    validation: float | None
    by_time: tuple[float, ...] | None = None
    rate: float | None = None


class Metrics:
    """Writes the figures of a run into its folder; the file is created with the first line.

    A training goes on without figures that cannot be written: the log tells it once.

    Args:
        step: the step from which the run resumes; later lines, from a run that was interrupted, are dropped.
        active: whether this process writes.
    """

    def __init__(self, folder: Path, step: int, active: bool):
        self.path, self.step, self.active = folder / FILE, step, active
        self.extras = Extras()
        self.board: SummaryWriter | None = None
        self.opened = False

    def open(self) -> None:
        """Begin the file, or keep the lines of it that are still valid."""
        if self.active and not self.opened:
            self.opened = True
            self.extras.attempt(FILE, self.begin_file)
            self.board = self.extras.attempt(
                BOARD, lambda: open_tensorboard(self.path.parent / "tensorboard", self.step)
            )

    def write(self, step: int, loss: float | None, validation: Validation | None, rate: float) -> None:
        """Add one line."""
        if not self.active:
            return
        self.open()
        by_time = validation.by_time if validation else [""] * len(TIMES)
        line = [
            step, "" if loss is None else loss, readable(rate), validation.loss if validation else "",
            *by_time,
        ]
        self.extras.attempt(FILE, lambda: self.append(line))
        if self.board is not None:
            self.extras.attempt(BOARD, lambda: self.write_board(step, line))

    def close(self) -> None:
        """Let go of the files."""
        if self.board is not None:
            with suppress(Exception):  # one that has failed before, which was told then
                self.board.close()
        self.board, self.opened = None, False

    def begin_file(self) -> None:
        """Write the CSV with the lines that are valid. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        clean_leftovers(self.path.parent)
        # The steps after the checkpoint are done again, so their lines would be there twice.
        lines = [line for line in read_lines(self.path) if int(line["step"]) <= self.step]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
        write_whole(self.path, text.getvalue().encode())  # a kill in between would lose all lines

    def append(self, line: list[object]) -> None:
        """Add a line to the CSV. Raises OSError."""
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(line)

    def write_board(self, step: int, line: list[object]) -> None:
        """Add a line of the CSV to the TensorBoard log. Raises OSError."""
        for name, value in zip(FIELDS[1:], line[1:], strict=True):
            if value != "":
                self.board.add_scalar(name, value, step)
        self.board.flush()


def readable(rate: float) -> float:
    """A learning rate without the digits of rounding, such as those of 0.00039999999999999996."""
    return float(f"{rate:.6g}")


def open_tensorboard(folder: Path, step: int) -> SummaryWriter | None:
    """A TensorBoard log from `step` on, or None, and a line in the log, if the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        logging.info("The package tensorboard is not installed; the figures go to %s only.", FILE)
        return None
    # Hides what the interrupted run logged after its checkpoint, as the CSV drops it.
    return SummaryWriter(folder, purge_step=step + 1)


def read_lines(path: Path) -> list[dict[str, str]]:
    """The complete lines of a CSV of figures; what a kill truncated or a fault damaged is left out."""
    if not path.is_file():
        return []
    # Not as text: Python would take the half of an end of a line, which Windows writes, for a whole one.
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    # What follows the last end of a line may be half a number.
    return [dict(zip(FIELDS, fields, strict=True)) for fields in map(fields_of, lines[:-1]) if fields]


def fields_of(line: str) -> list[str] | None:
    """The fields of a line of numbers, of which only loss and validation may be missing."""
    # Not by csv, which fails on zero bytes and long fields; no field that we write is quoted.
    fields = line.rstrip("\r").split(",")
    if len(fields) != len(FIELDS) or not re.fullmatch(r"\d{1,12}", fields[0]):
        return None
    try:
        numbers = [float(field) for field in fields if field]
    except ValueError:
        return None
    missing = len(fields) - len(numbers)
    by_time = fields[3:]
    return fields if missing <= 1 + len(by_time) and ("" not in by_time or not any(by_time)) else None


def read_points(folder: Path) -> list[Point]:
    """The figures of a run, for a chart. Raises OSError."""
    points = []
    for line in read_lines(folder / FILE):
        loss, rate, validation = (float(line[name]) if line[name] else None for name in FIELDS[1:4])
        by_time = None if validation is None else tuple(float(line[name]) for name in FIELDS[4:])
        points.append(Point(int(line["step"]), loss, validation, by_time, rate))
    return points
