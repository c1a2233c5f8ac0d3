"""CUDA graphs: the kernels of a step are recorded once, then replayed without Python or launches in between.

A step of a small transformer is a few hundred small kernels; with a batch of one, a GPU spends most of its
time waiting for their launches. What cannot be recorded runs as it is.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Step = Callable[..., Tensor]

# Libraries allocate workspaces and pick kernels on first use, which is not allowed while a graph is recorded.
WARM_UP = 2
SAME = 1e-2
"""How far a replay may lie from the step, relative to it: the rounding of half precision."""


def recordable(module: nn.Module, like: Tensor) -> bool:
    """Whether a step of `module` on inputs such as `like` runs the same kernels on the same memory each time.

    It does on a GPU if all weights are there, in the type of the computation, and nothing is patched into
    them on the way, as ComfyUI does with weights that it has offloaded.
    """
    # A replay does not record gradients, and autocast keeps converted weights in memory that it frees.
    if not like.is_cuda or torch.is_grad_enabled() or torch.is_autocast_enabled(like.device.type):
        return False

    # A weight that is elsewhere or of another type is fetched in every step, and a recording would hold on
    # to the addresses of the first time.
    def plain(weights: Tensor) -> bool:
        return weights.device == like.device and weights.dtype == like.dtype

    def patched(layer: nn.Module) -> bool:
        return bool(getattr(layer, "weight_function", None) or getattr(layer, "bias_function", None))

    return all(map(plain, module.parameters())) and not any(map(patched, module.modules()))


def recorded(step: Step, inputs: Sequence[Tensor]) -> RecordedStep | None:
    """`step`, a function of tensors, as a CUDA graph for inputs of these shapes.

    Returns:
        A function with the same results; None, with a warning, where recording fails or the replay gives
        a different result.
    """
    try:
        graph = RecordedStep(step, inputs)
        # A value that is baked into the recording, such as a Python number, replays without an error.
        if same(graph(*inputs), step(*inputs)):
            return graph
        reason = "the replay differs"
    except RuntimeError as error:
        reason = str(error)
    logging.getLogger(__name__).warning("sampling continues without a CUDA graph: %s", reason)
    return None


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether a replay gives what the step gives."""
    return bool((found - expected).float().norm() <= SAME * expected.float().norm())


class RecordedStep:
    """A step on fixed memory: inputs are copied in, the output is copied out."""

    def __init__(self, step: Step, inputs: Sequence[Tensor]):
        """Raises RuntimeError if the step cannot be recorded: on the CPU, or if it waits for the GPU."""
        stream = torch.cuda.Stream()  # the default stream cannot be recorded
        # The graph reads and writes at fixed addresses, so these copies live as long as it does.
        self.inputs = [each.clone() for each in inputs]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # By default an allocation in another thread breaks the recording, and ComfyUI's may make one.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.output = step(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        # The next replay overwrites the output.
        return self.output.clone()
