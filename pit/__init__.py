"""The engine: IP+ tokens, the IP-Prior and its flow-matching core, and pOps. Runs without ComfyUI.

The names below are the public interface. They are imported when the first of them is used: importing `pit`
costs nothing.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from . import systems  # noqa: F401  registers the kinds of files, which every loader below needs to know

if TYPE_CHECKING:  # for editors and type checkers
    from .public import (
        CheckpointError,
        EmbeddingOptimizer,
        IPAdapterPlus,
        IPPrior,
        Resampler,
        WeightFileError,
        apply_direction,
        clip_pixel_values,
        convert_lora,
        find_direction,
        load_embedding_optimizer,
        load_ip_adapter,
        load_operator,
        load_part_words,
        load_prior,
        sample_operator,
        sample_prior,
        velocity_loss,
    )

__all__ = [
    "CheckpointError", "EmbeddingOptimizer", "IPAdapterPlus", "IPPrior", "Resampler", "WeightFileError",
    "apply_direction", "clip_pixel_values", "convert_lora", "find_direction", "load_embedding_optimizer",
    "load_ip_adapter", "load_operator", "load_part_words", "load_prior", "sample_operator", "sample_prior",
    "velocity_loss",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # ComfyUI imports every pack when it starts, and `python -m pit --help` should not wait for torch: nothing
    # heavy is imported before it is used.
    from . import public

    return getattr(public, name)
