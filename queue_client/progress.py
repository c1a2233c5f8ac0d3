"""What the command shows: a bar in a terminal, lines about what happens, and a summary."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

from .journal import Journal
from .work import Work, Worker

WIDTH = 30
MOST_FAILURES = 20


class Progress:
    """Draws a bar where there is a terminal; several threads may tell what happens."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._bar = ""

    def tell(self, text: str) -> None:
        """A line of its own, above the bar."""
        with self._lock:
            self._write(f"{self._clear()}{_printable(text)}\n{self._bar}")

    def draw(self, journal: Journal) -> None:
        """The bar, if there is a terminal to draw it in."""
        if not self.stream.isatty():
            return
        counts = journal.counts()
        total = sum(counts.values())
        ended = counts["done"] + counts["failed"]
        blocks = ("#" * (WIDTH * ended // max(total, 1))).ljust(WIDTH, ".")
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        with self._lock:
            before, self._bar = self._clear(), f"[{blocks}] {counts['done']} of {total} done{failed}"
            self._write(f"{before}{self._bar}")

    def _clear(self) -> str:
        return "\r\x1b[K" if self._bar else ""

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def _printable(text: str) -> str:
    # Servers say what stands in it: nothing of that may steer the terminal.
    return "".join(letter if letter.isprintable() else " " for letter in text[:1000])


def summary(work: Work, workers: list[Worker], seconds: float) -> str:
    """How it went: what is done, by whom, what has failed and why, and what is left."""
    counts = work.journal.counts()
    total, left = sum(counts.values()), counts["waiting"] + counts["sent"]
    lines = [f"{counts['done']} of {total} done after {seconds:.0f} s; results in {work.output}"]
    lines += [f"  {server}: {number} done" for server, number in work.journal.done_by().items()]
    lines += [f"  {worker.name}: lost" for worker in workers if worker.away_since and worker.times_lost]
    failures = work.journal.failures()
    lines += [
        _printable(f"  failed: {name or work.stem} {run + 1}: {note}")
        for name, run, note in failures[:MOST_FAILURES]
    ]
    if failures:
        more = f"{len(failures) - MOST_FAILURES} more have failed. " if len(failures) > MOST_FAILURES else ""
        lines.append(f"  {more}The same command with --again tries again what has failed.")
    if left:
        lines.append(f"{left} are left to do: the same command resumes from here.")
    return "\n".join(lines)
