"""How long each stage takes, and how much memory it needs at most."""
from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

SECONDS_BETWEEN_LOOKS = 0.05


@dataclass
class Cost:
    """Seconds of work, and the most bytes in use at any moment of it."""

    seconds: float = 0.0
    memory: int = 0


class StageWatch:
    """Measures the stages that it is told of, while it is open as a context.

    What the system can drop at any time, the pages of files that are mapped, is not counted as memory.

    Args:
        processes: those that do the work.
    """

    def __init__(self, processes: Callable[[], Iterable[psutil.Process]]):
        self.processes = processes
        self.costs: dict[str, Cost] = {}
        self._stage: str | None = None
        self._since = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> StageWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enter(None)
        self._ended.set()
        self._thread.join()

    def enter(self, stage: str | None) -> None:
        """End the stage before, and begin another; None for work that counts for no stage."""
        now, stages = time.perf_counter(), (self._stage, stage)
        if self._stage is not None:
            self.costs[self._stage].seconds += now - self._since
        self._stage, self._since = stage, now
        # Once at each border, so that the shortest stage has been looked at.
        for each in stages:
            self._note(each)

    def _look(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self._note(self._stage)

    def _note(self, stage: str | None) -> None:
        if stage is not None:
            cost = self.costs.setdefault(stage, Cost())
            cost.memory = max(cost.memory, sum(map(own_memory, self.processes())))


def own_memory(process: psutil.Process) -> int:
    """The bytes of a process that are not pages of files; 0 once it has ended."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    # Only Linux tells how much of it is shared with files.
    return memory.rss - getattr(memory, "shared", 0)


def give_back() -> None:
    """Return freed memory to the system, so that it does not count for the next stage."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what it may need again


def this_process() -> list[psutil.Process]:
    """The one that asks."""
    return [psutil.Process()]


def processes_below() -> list[psutil.Process]:
    """All that the one that asks has started, and what those have started."""
    return psutil.Process().children(recursive=True)
