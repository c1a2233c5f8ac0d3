"""Which samples a step sees, and reading them ahead.

There is no data loader and so no state to save: what a step sees follows from the seed and the step alone. A
run that was stopped draws what an uninterrupted one draws, and two processes with half of the rows each draw
what one process draws with all of them.
"""
from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

GPU_READERS = 4  # a step on a fast GPU ends before a single thread has read the next batch


class Batch:
    """The samples of one step: a base for dataclasses whose fields are tensors, or None."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same batch with `change` applied to every tensor."""
        changed = {name: None if value is None else change(value) for name, value in vars(self).items()}
        return type(self)(**changed)

    def to(self, device: torch.device) -> Self:
        """The batch on a device."""
        # From pinned memory the copy runs beside the GPU's work; elsewhere, non_blocking changes nothing.
        return self.each(lambda value: value.to(device, non_blocking=True))


B = TypeVar("B", bound=Batch)


@contextmanager
def read_ahead(
    draw: Callable[[int, int], B], step: int, accumulation: int, device: torch.device
) -> Iterator[Iterator[B]]:
    """The batches `draw(step, micro)` of this step and all that follow, in order, drawn ahead in threads."""
    # Each thread uses one core: the cores that torch would use for it keep spinning while they wait for more
    # work, which made the training step beside them half as long again on a CPU.
    cores = torch.get_num_threads()
    places = ((s, micro) for s in count(step) for micro in range(accumulation))
    readers = GPU_READERS if device.type == "cuda" else 1

    def read(place: tuple[int, int]) -> B:
        batch = draw(*place)
        return batch.each(Tensor.pin_memory) if device.type == "cuda" else batch

    with ThreadPoolExecutor(readers, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        # Results are taken in the order in which they were requested, whichever thread finishes first: the
        # order of the batches is part of what a seed promises.
        coming = deque(threads.submit(read, next(places)) for _ in range(readers))

        def batches() -> Iterator[B]:
            while True:
                batch = coming.popleft().result()
                coming.append(threads.submit(read, next(places)))
                yield batch

        try:
            yield batches()
        finally:
            threads.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)  # for the calling thread, and for all that start later


def concept_at(concepts: Tensor, seed: int, position: int) -> int:
    """The concept at a position in the endless sequence of passes."""
    epoch, place = divmod(position, len(concepts))
    return int(concepts[permutation(len(concepts), seed, epoch)[place]])


# Two passes, since a step at the end of one reaches into the next.
@lru_cache(maxsize=2)
def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """The order of one pass over all concepts."""
    # One generator per pass, so that any pass can be drawn without those before it; on the CPU, so that a
    # seed means the same on every machine.
    order = random.Random(f"{seed}/pass {epoch}").getrandbits(63)
    return torch.randperm(count, generator=torch.Generator().manual_seed(order))
