"""The shipped weight files of the miniature models."""
from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...files.weights import WeightFileError, read_state
from .library import FOLDER

RENDERER, VISION, IP_ADAPTER, IP_PRIOR, READER, PREVIEW = (
    f"creature_{name}.safetensors"
    for name in ("renderer", "vision", "ip_adapter", "ip_prior", "reader", "preview")
)
VERSION = "2"  # to be raised with any change after which old files no longer fit the code or each other


def weight_file(name: str) -> Path:
    """The path of a shipped weight file.

    Raises:
        WeightFileError: it is missing, damaged, or of another version.
    """
    path = _shipped(name)
    _check_version(name, read_state(path)[1])
    return path


def read_weights(name: str) -> dict[str, Tensor]:
    """The tensors of a shipped weight file.

    Raises:
        WeightFileError: it is missing, damaged, or of another version.
    """
    state, metadata = read_state(_shipped(name))
    _check_version(name, metadata)
    return state


def _shipped(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise WeightFileError(
            f"Expected {name} of the creature models in {FOLDER}, got no such file. Install the pack again, "
            "or train the models with: python -m pit demo-train"
        )
    return path


def _check_version(name: str, metadata: dict[str, str]) -> None:
    if metadata.get("version") != VERSION:
        raise WeightFileError(
            f"Expected version {VERSION} of the creature models, got version {metadata.get('version')} of "
            f"{name}. Install the pack again."
        )


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
