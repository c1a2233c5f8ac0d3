"""How long the rest of a run takes."""
from __future__ import annotations

import time


class Pace:
    """The seconds that are left of a run, from its steps since the first that was told.

    That first step is not counted, because it also waits for kernels to be chosen and for the first batches.
    What comes up every so many steps, such as validations and checkpoints, is part of the pace.
    """

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None

    def seconds_left(self, step: int, steps: int) -> float | None:
        """Tell that `step` of `steps` is done; None as long as there is no pace yet."""
        now = time.monotonic()
        if self.first is None:
            self.first = step, now
        first_step, start = self.first
        return (now - start) / (step - first_step) * (steps - step) if step > first_step else None


def duration(seconds: float) -> str:
    """Seconds in words, as roughly as an estimate deserves: "40 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
