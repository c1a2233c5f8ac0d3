"""What a small input may cost: 4 s of processor time, which is 2 s on a fast core, and 500 MB of memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SECONDS, BYTES = 4.0, 500_000_000
VIEWS, VIEWS_SECONDS = 50_000, 0.1
"""How long an ordinary core takes to make so many views of a tensor."""


def pace() -> float:
    """How many times longer than an ordinary core this one takes now, at least 1: others may share it."""
    tensor = torch.zeros(2)
    started = time.thread_time()
    views = [tensor[:1] for _ in range(VIEWS)]
    assert len(views) == VIEWS
    return max(1.0, (time.thread_time() - started) / VIEWS_SECONDS)


@contextmanager
def frugally(seconds: float = SECONDS, room: int = BYTES) -> Iterator[None]:
    """Fail if the block takes more processor time, or asks for more memory, than a small input may cost."""
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
