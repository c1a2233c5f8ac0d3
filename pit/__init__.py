"""The engine: IP+ tokens, the IP-Prior and its flow-matching core. Runs without ComfyUI.

The names below are the public interface, imported when first used: importing `pit` itself costs nothing.
"""
from __future__ import annotations

import importlib

_HOMES = {
    "IPPrior": "piece_it_together.prior",
    "Resampler": "ip_adapter.resampler",
    "IPAdapterPlus": "ip_adapter.attention",
    "CheckpointError": "files.weights",
    "load_prior": "piece_it_together.prior_files",
    "load_ip_adapter": "ip_adapter.files",
    "sample_prior": "piece_it_together.sample",
    "velocity_loss": "flow.path",
    "clip_pixel_values": "images",
    "convert_lora": "files.lora",
    "find_direction": "piece_it_together.directions",
    "apply_direction": "piece_it_together.directions",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
