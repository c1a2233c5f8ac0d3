"""What weights do not tell, as it stands beside them or in the metadata of their file.

Layouts: `cfg.yaml` of the published priors (github.com/eladrich/PiT), `adapter_config.json` of PEFT, and the
metadata `lora_adapter_metadata` of diffusers.
"""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from .weight_files import CheckpointError

# Of all that the published training writes into cfg.yaml, what a reader of the weights needs.
NOTES = {"num_attention_heads": int, "hidden_dim": int, "num_layers": int, "use_ref": bool}


def prior_notes(path: Path, metadata: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, int | bool]:
    """What `cfg.yaml` beside a prior says, else the file's metadata, under the names of `cfg.yaml`."""
    notes: dict[str, int | bool] = {}
    if "num_heads" in metadata:
        notes["num_attention_heads"] = whole_number(path, "num_heads", metadata)
    if metadata.get("use_ref", "").lower() in ("true", "false"):
        notes["use_ref"] = metadata["use_ref"].lower() == "true"
    notes |= _cfg_yaml(path.with_name("cfg.yaml"))
    for name in ("hidden_dim", "num_layers"):
        if notes.get(name, sizes[name]) != sizes[name]:
            raise CheckpointError(
                f"{path} has a {name} of {sizes[name]}, but the cfg.yaml beside it says {notes[name]} and so "
                "belongs to another prior. Keep each prior with its own cfg.yaml in a folder of its own."
            )
    return notes


def _cfg_yaml(path: Path) -> dict[str, int | bool]:
    if not path.is_file():
        return {}
    advice = "Repair it, or move it away and give num_heads."
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(error).split())}). {advice}") from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise CheckpointError(f"{path} holds a {found}, expected lines of the form `name: value`. {advice}")
    notes = {name: content[name] for name in NOTES if content.get(name) is not None}
    for name, value in notes.items():
        if type(value) is not NOTES[name]:
            raise CheckpointError(f"{path}: {name} is {value!r}, expected {NOTES[name].__name__}. {advice}")
    return notes


def whole_number(path: Path, name: str, metadata: Mapping[str, str]) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", metadata[name]):
        raise CheckpointError(
            f"{path}: {name} in its metadata is {metadata[name]!r}, expected a whole number from 1. "
            "Save the file again."
        )
    return int(metadata[name])


def peft_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    """PEFT's settings of a LoRA: from the metadata that diffusers writes, else from the file beside it."""
    beside = path.with_name("adapter_config.json")
    try:
        if "lora_adapter_metadata" in metadata:
            settings = json.loads(metadata["lora_adapter_metadata"])
        elif path.stem == "adapter_model" and beside.is_file():
            settings = json.loads(beside.read_text(encoding="utf-8"))
        else:
            return {}
        settings = {key.removeprefix("unet."): value for key, value in settings.items()}
        scales = [settings.get("lora_alpha"), *dict(settings.get("alpha_pattern") or {}).values()]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The settings of the LoRA {path} cannot be read: {error}") from error
    for scale in scales:
        if not isinstance(scale, int | float | None):
            raise CheckpointError(f"The settings of the LoRA {path} hold {scale!r} as an alpha.")
    return settings
