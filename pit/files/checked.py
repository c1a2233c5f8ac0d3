"""Weight files of a known kind: every key, shape, type and value is right, or there is one clear error."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..messages import quoted
from .known import first_of, what_is
from .weights import WeightFileError

StrPath = str | os.PathLike[str]
State = dict[str, Tensor]
FLOAT8 = {torch.float8_e4m3fn, torch.float8_e5m2}
# The types that weights are published in. Integers are refused: they mean nothing without their scales.
WEIGHT_TYPES = {torch.float32, torch.float16, torch.bfloat16, *FLOAT8}
MOST_LAYERS = 128
# Words that trainings put before the names of a model: of several GPUs, of a file, of a class around it.
WRAPPERS = {"module", "model", "state_dict"}
# Words that torch alone uses, wherever they stand: of compiled, sharded and recomputed modules.
WRAPPER_MODULES = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def another_file(path: Path, state: State, wanted: str) -> WeightFileError:
    """The error for a file of another kind than `wanted` (with its article): says what it is instead."""
    what, advice = what_is(without_wrappers(state))
    if wanted.startswith(what):  # told by some of its names, perhaps within another module
        return WeightFileError(
            f"{path}: expected {wanted}, complete and with nothing around it, got a file with the keys "
            f"{first_of(list(state))}. Take the published file, or save it again."
        )
    return WeightFileError(f"{path}: expected {wanted}, got {what}. {advice}")


def without_wrappers(state: State) -> State:
    """The weights without what trainings put in front of their names, or in front of those of a whole part.

    A part is what shares the first word of its names, such as `image_proj`.
    """
    names = [[word for word in key.split(".") if word not in WRAPPER_MODULES] or [key] for key in state]
    # A wrapper is around the whole model, or a whole part of it, so either every name has the word or none of
    # them does; a single one is a mistake, and stays visible as an unknown name.
    around = _wrappers(names, 0)
    names = [name[around:] for name in names]
    parts: dict[str, list[list[str]]] = {}
    for name in names:
        parts.setdefault(name[0], []).append(name)
    for part in parts.values():
        around = _wrappers(part, 1)
        for name in part:
            del name[1:1 + around]
    plain = [".".join(name) for name in names]
    # Two of one name are two models, of which none can be told to be the right one.
    return dict(zip(plain, state.values(), strict=True)) if len(set(plain)) == len(plain) else state


def _wrappers(names: list[list[str]], place: int) -> int:
    """How many words from a place on are wrappers that all names have."""
    end = place
    while names and _wrapped(names, end):
        end += 1
    return end - place


def _wrapped(names: list[list[str]], place: int) -> bool:
    word = names[0][place] if len(names[0]) > place + 1 else ""
    return word in WRAPPERS and all(len(name) > place + 1 and name[place] == word for name in names)


def matrix_shape(path: Path, state: State, key: str) -> tuple[int, int]:
    """Rows and columns of a weight from which sizes are inferred.

    Raises:
        WeightFileError: it is missing, or not a matrix.
    """
    if key not in state:
        raise WeightFileError(f"{path}: expected a tensor {key}, got none. Fetch the file again.")
    shape = state[key].shape
    if len(shape) != 2 or 0 in shape:
        raise WeightFileError(
            f"{path}: expected {key} to be a matrix, got shape {list(shape)}. Fetch the file again."
        )
    return shape[0], shape[1]


def count_layers(path: Path, state: State, prefix: str = "", word: str = "layers") -> int:
    """How many different numbers follow `{prefix}{word}.` in the keys.

    Raises:
        WeightFileError: there are more than any model has.
    """
    # Counted rather than the highest number plus one: a forged key `layers.999999999.x` must not make the
    # caller build a model of a billion layers. A gap in the numbers shows later, as missing and unknown keys.
    matches = (re.match(rf"{re.escape(prefix)}{word}\.(\d+)\.", key) for key in state)
    count = len({match[1] for match in matches if match})
    if count > MOST_LAYERS:  # each would be built, if only without memory, before the first is refused
        raise WeightFileError(
            f"{path}: expected at most {MOST_LAYERS} layers, got {count}. It is damaged or of another kind; "
            "take the published file."
        )
    return count


def shapes(module: nn.Module, prefix: str = "") -> dict[str, torch.Size]:
    """The shapes that the weights of a module must have, by `prefix` and key."""
    return {prefix + key: tensor.shape for key, tensor in module.state_dict().items()}


def sound(path: Path, state: State, expected: Mapping[str, torch.Size]) -> State:
    """The weights once every key, shape, type and value has been checked; float64 is narrowed to float32.

    Raises:
        WeightFileError: names the first key that is wrong, what was expected and what was found.
    """
    _check_keys(path, state, expected)
    # Before the check for finite values: a large float64 becomes infinite when it is narrowed.
    state = {key: value.float() if value.dtype is torch.float64 else value for key, value in state.items()}
    for key, tensor in state.items():
        shape = expected[key]
        if tensor.shape != shape:
            raise WeightFileError(
                f"{path}: expected {key} of shape {list(shape)} to fit the rest of the file, got "
                f"{list(tensor.shape)}. It is damaged or belongs to another model; fetch it again."
            )
        if tensor.dtype not in WEIGHT_TYPES:
            raise WeightFileError(
                f"{path}: expected floating-point weights in {key}, got {tensor.dtype}. Take the fp16 file."
            )
        if not _is_finite(tensor):
            raise WeightFileError(
                f"{path}: expected finite numbers in {key}, got NaN or infinite values. Its training failed "
                "or the file is damaged; fetch it again."
            )
    return state


def computable(tensor: Tensor) -> Tensor:
    """A tensor in a type that can compute: float8 becomes float16, exactly."""
    # Every value of both is a value of float16, too. Without scales, that is all there is to a float8 file.
    return tensor.half() if tensor.dtype in FLOAT8 else tensor


def _check_keys(path: Path, state: State, expected: Mapping[str, torch.Size]) -> None:
    lists = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
    }
    wrong = "; ".join(f"{len(keys)} {word}: {first_of(keys)}" for word, keys in lists.items() if keys)
    if wrong:
        raise WeightFileError(
            f"{path}: expected {len(expected)} tensors, got {len(state)} ({wrong}). It is incomplete or "
            "belongs to another model; take the published file."
        )


def _is_finite(tensor: Tensor) -> bool:
    # The minimum and the maximum show every NaN and infinity, much faster than testing each value: aminmax
    # reads the tensor once, propagates NaN, and allocates nothing of its size. float8 has no aminmax.
    low, high = computable(tensor).aminmax()
    return bool(low.isfinite() and high.isfinite())


def filled(module: nn.Module, state: State) -> nn.Module:
    """A module built on the meta device, given its weights; mixed types become float32, so that it runs."""
    if len({tensor.dtype for tensor in state.values()}) > 1:
        state = {key: tensor.float() for key, tensor in state.items()}
    # Assigned, not copied: a meta module has no memory to copy into, and a mapped file stays mapped.
    module.load_state_dict(state, assign=True)
    return module.eval()


def whole_number(path: Path, name: str, metadata: Mapping[str, str]) -> int:
    """A positive whole number in the metadata. Raises WeightFileError for anything else."""
    # Six digits at most: sizes come from this number, and a forged one must not allocate without limit.
    if not re.fullmatch(r"[1-9]\d{0,5}", metadata[name]):
        raise WeightFileError(
            f"{path}: expected a whole number from 1 as {name} in its metadata, got "
            f"{quoted(metadata[name])}. "
            "Save the file again."
        )
    return int(metadata[name])
