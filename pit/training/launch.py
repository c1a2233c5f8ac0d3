"""On which device, in which precision and in how many processes a training runs."""
from __future__ import annotations

import logging
from dataclasses import replace
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedType

from ..flow.precision import cpu_has_bf16
from .recipes import Recipe

R = TypeVar("R", bound=Recipe)


def for_device(recipe: R, device: torch.device) -> R:
    """The recipe, in float32 where it asks for bfloat16 of a CPU that has none; the log says so."""
    if recipe.precision != "bf16" or device.type != "cpu" or cpu_has_bf16():
        return recipe
    logging.warning("This processor has no bfloat16, which would take many times as long: training in fp32.")
    return replace(recipe, precision="fp32")


def data_parallel(cpu: bool) -> Accelerator:
    """One process, or several that each hold the whole model; what `accelerate config` says else is not used.

    Raises:
        ValueError: the processes were launched to share out the model.
    """
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    accelerator.gradient_accumulation_steps = 1
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ValueError(
            f"The processes were launched for {accelerator.distributed_type.value}, but each of them trains "
            "a whole model. Launch with --multi_gpu."
        )
    return accelerator


def leave() -> None:
    """Take leave of the other processes, if there are any: one that merely ends may be aborted."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
