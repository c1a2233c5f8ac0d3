"""Weight files of a known kind: every key, shape, type and value as it must be, or one clear error."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .known import first_of, what_is
from .weights import WeightFileError

StrPath = str | os.PathLike[str]
State = dict[str, Tensor]
WEIGHT_TYPES = {torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}


def another_file(path: Path, state: State, wanted: str) -> WeightFileError:
    what, advice = what_is(state)
    return WeightFileError(f"{path} is {what}; expected {wanted}. {advice}")


def without_module(state: State) -> State:
    """Keys without the `module.` that a run on several GPUs leaves in front of all of them."""
    if not all(key.startswith("module.") for key in state):
        return state
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def matrix_shape(path: Path, state: State, key: str) -> tuple[int, int]:
    """Rows and columns of a weight from which sizes are inferred."""
    if key not in state:
        raise WeightFileError(f"{path} has no {key}, which all of its kind have. Fetch the file again.")
    shape = state[key].shape
    if len(shape) != 2 or 0 in shape:
        raise WeightFileError(f"{path}: {key} has shape {list(shape)}, expected a matrix. Fetch it again.")
    return shape[0], shape[1]


def count_layers(state: State, prefix: str = "") -> int:
    matches = (re.match(rf"{re.escape(prefix)}layers\.(\d+)\.", key) for key in state)
    return len({match[1] for match in matches if match})


def shapes(module: nn.Module, prefix: str = "") -> dict[str, torch.Size]:
    return {prefix + key: tensor.shape for key, tensor in module.state_dict().items()}


def sound(path: Path, state: State, expected: Mapping[str, torch.Size]) -> State:
    """The weights, float64 narrowed to float32, once every key, shape, type and value is as it must be."""
    _check_keys(path, state, expected)
    state = {key: value.float() if value.dtype is torch.float64 else value for key, value in state.items()}
    for key, tensor in state.items():
        shape = expected[key]
        if tensor.shape != shape:
            raise WeightFileError(
                f"{path}: {key} has shape {list(tensor.shape)}, expected {list(shape)} to fit the rest of "
                "the file. It is damaged or of another model; fetch it again."
            )
        if tensor.dtype not in WEIGHT_TYPES:
            raise WeightFileError(
                f"{path}: {key} is {tensor.dtype}, expected floating-point weights. Take the fp16 file."
            )
        if not _is_finite(tensor):
            raise WeightFileError(
                f"{path}: {key} holds NaN or infinite values, expected numbers; its training failed or the "
                "file is damaged. Fetch it again."
            )
    return state


def _check_keys(path: Path, state: State, expected: Mapping[str, torch.Size]) -> None:
    lists = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
    }
    wrong = "; ".join(f"{len(keys)} {word}: {first_of(keys)}" for word, keys in lists.items() if keys)
    if wrong:
        raise WeightFileError(
            f"{path} holds {len(state)} tensors, expected {len(expected)} ({wrong}). It is incomplete or of "
            "another model; take the published file."
        )


def _is_finite(tensor: Tensor) -> bool:
    # The extremes show every NaN and infinity much faster than a test of each value; float8 has no aminmax.
    low, high = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return bool(low.isfinite() and high.isfinite())


def filled(module: nn.Module, state: State) -> nn.Module:
    """A module of the meta device with its weights; those of mixed types become float32, so that it runs."""
    if len({tensor.dtype for tensor in state.values()}) > 1:
        state = {key: tensor.float() for key, tensor in state.items()}
    module.load_state_dict(state, assign=True)
    return module.eval()


def whole_number(path: Path, name: str, metadata: Mapping[str, str]) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", metadata[name]):
        raise WeightFileError(
            f"{path}: {name} in its metadata is {metadata[name]!r}, expected a whole number from 1. "
            "Save the file again."
        )
    return int(metadata[name])
