"""Waiting for other processes."""
from __future__ import annotations

import time
from collections.abc import Callable

STUCK_SECONDS = 600.0


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, however slow the machine is; only a test that is stuck is ended."""
    stuck = time.monotonic() + STUCK_SECONDS
    while not condition():
        assert time.monotonic() < stuck, "what the test waits for does not come"
        time.sleep(0.02)
