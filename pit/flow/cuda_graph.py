"""CUDA graphs: the kernels of a step recorded once, then replayed without Python and launches in between.

An IP-Prior is a few hundred small kernels a step; with one concept a GPU waits for their launches most of the
time. What cannot be recorded runs as it is.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Step = Callable[..., Tensor]

WARM_UP = 2
SAME = 1e-2
"""How far, relative to it, a replay may lie from the step: rounding of half precision."""


def recordable(module: nn.Module, like: Tensor) -> bool:
    """Whether a step of `module` on inputs such as `like` is the same kernels on the same memory every time.

    So it is on a GPU, if all weights lie there in the type that is computed in, and nothing is patched into
    them on the way, as ComfyUI does with weights that it has offloaded. Not so with gradients or autocast.
    """
    if not like.is_cuda or torch.is_grad_enabled() or torch.is_autocast_enabled(like.device.type):
        return False

    def plain(weights: Tensor) -> bool:
        return weights.device == like.device and weights.dtype == like.dtype

    def patched(layer: nn.Module) -> bool:
        return bool(getattr(layer, "weight_function", None) or getattr(layer, "bias_function", None))

    return all(map(plain, module.parameters())) and not any(map(patched, module.modules()))


def recorded(step: Step, inputs: Sequence[Tensor]) -> RecordedStep | None:
    """`step`, a function of tensors, as a CUDA graph for inputs of these shapes.

    Returns:
        A function that gives the same; None, with a warning, where recording fails or the replay gives
        something else.
    """
    try:
        graph = RecordedStep(step, inputs)
        if same(graph(*inputs), step(*inputs)):
            return graph
        reason = "the replay differs"
    except RuntimeError as error:
        reason = str(error)
    logging.getLogger(__name__).warning("sampling goes on without a CUDA graph: %s", reason)
    return None


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether a replay gives what the step gives."""
    return bool((found - expected).float().norm() <= SAME * expected.float().norm())


class RecordedStep:
    """A step on fixed memory: inputs are copied in, the output is copied out."""

    def __init__(self, step: Step, inputs: Sequence[Tensor]):
        """Raises RuntimeError if the step cannot be recorded: on the CPU, or if it waits for the GPU."""
        stream = torch.cuda.Stream()
        self.inputs = [each.clone() for each in inputs]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # ComfyUI's other threads may use the GPU meanwhile.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.output = step(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()
