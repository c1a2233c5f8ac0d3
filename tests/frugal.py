"""What a small input may cost: 4 s of an ordinary core, which is 2 s of a fast one, and 500 MB of memory."""

from __future__ import annotations

import resource
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SECONDS, BYTES = 4.0, 500_000_000
# An ordinary core makes so many views of a tensor in so many seconds.
VIEWS, VIEWS_SECONDS = 50_000, 0.1


def pace() -> float:
    """How many times longer than an ordinary core this one takes now, at least 1: others may share it."""
    tensor = torch.zeros(2)
    took = timeit.timeit(lambda: tensor[:1], timer=time.thread_time, number=VIEWS)
    return max(1.0, took / VIEWS_SECONDS)


@contextmanager
def frugally(seconds: float = SECONDS, room: int = BYTES) -> Iterator[None]:
    """Fail if the block takes more processor time, or asks for more memory, than a small input may cost.

    Args:
        seconds: of an ordinary core; a slower one may take longer by its `pace`.
    """
    before = pace()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    # Address space, not resident memory: what is only asked for, and never touched, counts as well.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    started = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    took = time.process_time() - started
    assert took < seconds * max(before, pace())
