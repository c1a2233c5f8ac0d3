"""Too little memory: how it is recognized, and what a recipe can do about it."""
from __future__ import annotations

from accelerate.utils.memory import should_reduce_batch_size

from .recipes import Recipe


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    # accelerate knows the devices' errors; Python's own is raised where numbers or files are copied.
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def ways_to_save_memory(recipe: Recipe, thrifty_preset: str) -> str:
    """What to change so that a training takes less memory, in words."""
    ways = []
    if recipe.batch > 1:
        ways.append(
            f"Lower batch (now {recipe.batch}) and raise accumulation (now {recipe.accumulation}) to match"
        )
    if not recipe.gradient_checkpointing:
        ways.append("turn gradient_checkpointing on")
    if ways:
        advice = ", or ".join(ways)
        return f'{advice[0].upper()}{advice[1:]}; the preset "{thrifty_preset}" does both.'
    smaller = "Close other programs that use the same memory"
    if recipe.optimizer in ("adamw", "schedule_free"):
        smaller += ', choose the optimizer "adafactor" or "adamw_8bit", which keep less of each weight'
    return (
        f"The batch is 1 and gradient_checkpointing is on already. {smaller}, or train fewer weights: a "
        "smaller model, or a LoRA of a lower rank."
    )
