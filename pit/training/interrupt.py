"""Canceling in the middle of a step."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def interrupting(model: nn.Module, interrupt: Callable[[], None] | None) -> Iterator[None]:
    """Ask `interrupt`, which may raise, before every layer of a model and after every gradient.

    A step of a large model on a CPU takes minutes. Nothing is computed differently: the hooks only look.
    """
    if interrupt is None:
        yield
        return
    hooks = [module.register_forward_pre_hook(lambda *_: interrupt()) for module in model.modules()]
    # In the backward pass by the parameters, since hooks on the modules would change the graph.
    hooks += [
        parameter.register_post_accumulate_grad_hook(lambda _: interrupt())
        for parameter in model.parameters() if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
