"""The device, precision and number of processes that a training runs with."""
from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs

from ..flow.precision import cpu_has_bf16
from .recipes import Recipe

R = TypeVar("R", bound=Recipe)


def for_device(recipe: R, device: torch.device) -> R:
    """The recipe, with fp32 in place of bf16 on a CPU without bfloat16; the log says so."""
    # Such a CPU emulates bfloat16 and takes many times as long: the setting would cost time and gain nothing.
    if recipe.precision != "bf16" or device.type != "cpu" or cpu_has_bf16():
        return recipe
    logging.warning("This CPU has no bfloat16 and would take many times as long with it: training in fp32.")
    return replace(recipe, precision="fp32")


def data_parallel(cpu: bool, patience: timedelta | None = None) -> Accelerator:
    """One process, or several that each hold the whole model; `accelerate config` decides nothing else.

    Args:
        patience: how long processes wait for each other; accelerate's own 10 to 30 minutes if not given.
    Raises:
        ValueError: the processes were launched to divide the model among them.
    """
    # `accelerate config` sets both through the environment, but the recipe decides: the trainer applies its
    # precision itself, and divides by its own accumulation, while backward() would divide again.
    waiting = [] if patience is None else [InitProcessGroupKwargs(timeout=patience)]
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=waiting)
    accelerator.gradient_accumulation_steps = 1
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ValueError(
            "Expected processes that each train the whole model, got processes launched for "
            f"{accelerator.distributed_type.value}. Launch them with --multi_gpu."
        )
    return accelerator


def leave() -> None:
    """Disconnect from the other processes, if there are any."""
    # A process that just ends while the group exists may abort the others, or be aborted itself.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
