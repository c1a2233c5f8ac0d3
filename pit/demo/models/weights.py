"""The shipped weights of the miniature models, and how they are written and read."""
from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...files.weights import WeightFileError, read_state
from .library import FOLDER

RENDERER, VISION, IP_ADAPTER, IP_PRIOR, READER, PREVIEW = (
    f"creature_{name}.safetensors"
    for name in ("renderer", "vision", "ip_adapter", "ip_prior", "reader", "preview")
)
VERSION = "2"


def weight_file(name: str) -> Path:
    """Path of a shipped file.

    Raises:
        WeightFileError: missing, damaged, or of another version of the pack.
    """
    path = _shipped(name)
    _check_version(name, read_state(path)[1])
    return path


def read_weights(name: str) -> dict[str, Tensor]:
    """Tensors of a shipped file.

    Raises:
        WeightFileError: missing, damaged, or of another version of the pack.
    """
    state, metadata = read_state(_shipped(name))
    _check_version(name, metadata)
    return state


def _shipped(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise WeightFileError(
            f"{name} of the creature models was looked for in {FOLDER} and is not there. Install the pack "
            "again, or train the models with: python -m pit demo-train"
        )
    return path


def _check_version(name: str, metadata: dict[str, str]) -> None:
    if metadata.get("version") != VERSION:
        raise WeightFileError(
            f"{name} is version {metadata.get('version')} of the creature models, this pack needs version "
            f"{VERSION}. Install the pack again."
        )


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
