"""The published implementation's outputs, and how closely ours must follow them. See golden/README.md."""
from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

BUNDLED = Path(__file__).parent / "golden"
TOLERANCE = 1e-5


class Golden:
    """A folder of golden data. Do not write into the tensors that it hands out.

    Another folder than ours need not hold every file: a test that asks for a missing one is skipped.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        """A file or folder in it; the test ends here if there is none."""
        path = self.folder / name
        if not path.exists():
            (pytest.fail if self.folder == BUNDLED else pytest.skip)(f"{self.folder} has no {name}")
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of `name`.safetensors."""
        return _tensors(self.path(f"{name}.safetensors"))

    def below(self, name: str, prefix: str) -> dict[str, Tensor]:
        """The tensors whose keys begin with a prefix, without it."""
        found = {key: value for key, value in self.tensors(name).items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): value for key, value in found.items()}

    def facts(self, name: str) -> Any:
        """The content of `name`.json."""
        return _facts(self.path(f"{name}.json"))

    def keys(self, name: str, pattern: str) -> list[str]:
        """The keys of `name`.safetensors that match a pattern as a whole; none if there is no such file."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return []
        with safe_open(path, "pt") as file:
            return [key for key in file.keys() if re.fullmatch(pattern, key)]


@cache
def _tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path)


@cache
def _facts(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def number_in(key: str, word: str, default: float | None = None) -> float:
    """The number behind a word in a key, such as 0.4 in `out_init_strength0.4_g2` behind `strength`."""
    found = re.search(rf"(?:^|[._]){word}(-?\d+(?:\.\d+)?)(?=_|$)", key)
    if found is None and default is None:
        raise LookupError(f"Expected a number behind {word!r} in the key {key!r}, got none.")
    return default if found is None else float(found[1])


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value expected."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def assert_equal(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    error = relative_error(ours, theirs)
    assert error <= tolerance, f"relative error {error:.2e}"
