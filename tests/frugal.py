"""What a small input may cost: 4 s of processor time, which is 2 s on a fast core, and 500 MB of memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS, BYTES = 4.0, 500_000_000


@contextmanager
def frugally(seconds: float = SECONDS, room: int = BYTES) -> Iterator[None]:
    """Fail if the block takes more processor time, or asks for more memory, than a small input may cost."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    # Address space, not resident memory: what is only asked for, and never touched, counts as well.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    started = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - started < seconds
