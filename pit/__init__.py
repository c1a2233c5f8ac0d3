"""The engine: IP+ tokens, the IP-Prior and its flow-matching core. Runs without ComfyUI.

The names below are the public interface, imported when first used: importing `pit` itself costs nothing.
"""
from __future__ import annotations

import importlib

_HOMES = {
    "IPPrior": "prior",
    "Resampler": "resampler",
    "IPAdapterPlus": "adapter",
    "CheckpointError": "checkpoints",
    "load_prior": "checkpoints",
    "load_ip_adapter": "checkpoints",
    "sample_prior": "flow",
    "velocity_loss": "flow",
    "clip_pixel_values": "images",
    "convert_lora": "lora",
    "find_direction": "directions",
    "apply_direction": "directions",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
