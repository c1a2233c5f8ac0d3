"""The figures of a run: a CSV that survives resuming, and TensorBoard where its package is installed."""
from __future__ import annotations

import csv
import io
import logging
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
    """The complete lines of a CSV of figures; one that is cut or damaged is left out. Raises OSError."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        text = file.read()
    # A kill or a full disk may cut the last line even within its last number, which then looks complete:
    # only the end of the line tells that nothing is missing.
    complete = text[:text.rfind("\n") + 1].replace("\0", "")
    return [line for line in csv.DictReader(io.StringIO(complete, newline="")) if is_whole(line)]


def is_whole(line: dict[str | None, str | None]) -> bool:
    """Whether a line has all fields, and a number in each that is not empty."""
    # DictReader fills the missing fields of a short line with None, and puts surplus ones under None.
    if None in line or None in line.values() or not line.keys() >= set(FIELDS):
        return False
    try:
        int(line["step"])
        [float(line[name]) for name in FIELDS[1:] if line[name]]
    except ValueError:
        return False
    return not line["validation"] or all(line[name] for name in FIELDS[4:])


def read_points(folder: Path) -> list[Point]:
    """The figures of a run, for a chart. Raises OSError."""
    points = []
    for line in read_lines(folder / FILE):
        loss, rate, validation = (float(line[name]) if line[name] else None for name in FIELDS[1:4])
        by_time = None if validation is None else tuple(float(line[name]) for name in FIELDS[4:])
        points.append(Point(int(line["step"]), loss, validation, by_time, rate))
    return points
