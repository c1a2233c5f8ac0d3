"""The published implementation's outputs, and how closely ours must follow them. See golden/README.md."""

import json
from functools import cache
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 1e-5


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a golden file; do not write into them."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts(name: str) -> dict:
    """A golden JSON file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def below(name: str, prefix: str) -> dict[str, Tensor]:
    """The tensors of a golden file whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors(name).items() if key.startswith(prefix)}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value expected."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    error = relative_error(ours, theirs)
    assert error <= TOLERANCE, f"relative error {error:.2e}"
