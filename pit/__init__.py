"""The engine: IP+ tokens, the IP-Prior and its flow-matching core, and pOps. Runs without ComfyUI.

The names below are the public interface. They are imported when first used: importing `pit` costs nothing.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import systems  # noqa: F401  registers the kinds of files, which every loader below needs to know

if TYPE_CHECKING:  # for editors and type checkers
    from .concepts.directions import apply_direction, find_direction
    from .files.lora import convert_lora
    from .files.weights import CheckpointError, WeightFileError
    from .flow.path import velocity_loss
    from .images import clip_pixel_values
    from .ip_adapter.attention import IPAdapterPlus
    from .ip_adapter.files import load_ip_adapter
    from .ip_adapter.resampler import Resampler
    from .object_insertion.embedding_optimizer import EmbeddingOptimizer
    from .object_insertion.files import load_embedding_optimizer
    from .partcraft.files import load_part_words
    from .piece_it_together.prior import IPPrior
    from .piece_it_together.prior_files import load_prior
    from .piece_it_together.sample import sample_prior
    from .pops.files import load_operator
    from .pops.sample import sample_operator

# ComfyUI imports every pack when it starts, and `python -m pit --help` should not wait for torch: nothing
# heavy is imported before it is used.
_HOMES = {
    "IPPrior": "piece_it_together.prior",
    "load_prior": "piece_it_together.prior_files",
    "sample_prior": "piece_it_together.sample",
    "find_direction": "concepts.directions",
    "apply_direction": "concepts.directions",
    "Resampler": "ip_adapter.resampler",
    "load_part_words": "partcraft.files",
    "IPAdapterPlus": "ip_adapter.attention",
    "load_ip_adapter": "ip_adapter.files",
    "EmbeddingOptimizer": "object_insertion.embedding_optimizer",
    "load_embedding_optimizer": "object_insertion.files",
    "velocity_loss": "flow.path",
    "clip_pixel_values": "images",
    "convert_lora": "files.lora",
    "WeightFileError": "files.weights",
    "CheckpointError": "files.weights",
    "load_operator": "pops.files",
    "sample_operator": "pops.sample",
}
__all__ = [
    "CheckpointError", "EmbeddingOptimizer", "IPAdapterPlus", "IPPrior", "Resampler", "WeightFileError",
    "apply_direction", "clip_pixel_values", "convert_lora", "find_direction", "load_embedding_optimizer",
    "load_ip_adapter", "load_operator", "load_part_words", "load_prior", "sample_operator", "sample_prior",
    "velocity_loss",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
