"""Samples that are encoded once: one file each, in one folder per set of models that encoded them.

A file is named by a hash of everything that the sample is made from, so that nothing stale is ever read, more
samples only add files, and an interrupted run resumes. Models are compared by what they hold or answer: a
hash of their file name would change when the file is renamed, a hash of the digits of an answer with the
number of threads.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from torch import Tensor

from ..files.plain_json import read_json
from ..files.records import Models, differing_models, models_from_json, models_to_json
from ..files.weights import WeightFileError, read_state, write_state
from ..files.whole import not_written, write_whole

MODELS = "models.json"


def models_folder(root: Path, models: Models) -> Path:
    """The folder in `root` with the samples that these models encoded; a new one if there is none.

    Raises:
        WeightFileError: the folder cannot be written.
    """
    for path in sorted(root.glob(f"*/{MODELS}")):
        found = _read_models(path)
        if found is not None and not differing_models(found, models):
            return path.parent
    # Numbered rather than named by a hash: models are the same within a tolerance, which no hash can express.
    folder = next(folder for number in count(1) if not (folder := root / f"models-{number}").exists())
    try:
        folder.mkdir(parents=True)
        write_whole(folder / MODELS, json.dumps(models_to_json(models), indent=1).encode())
    except OSError as error:
        raise WeightFileError(not_written(folder, error)) from error
    return folder


def _read_models(path: Path) -> Models | None:
    """None for a damaged file: its samples are then encoded again in another folder."""
    try:
        return models_from_json(read_json(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def digest(parts: Sequence[str]) -> str:
    """A file name that depends on all of `parts`."""
    # As JSON, so that ["ab", "c"] and ["a", "bc"] differ.
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:32]


def write_sample(path: Path, sample: Mapping[str, Tensor], half: Iterable[str] = ()) -> None:
    """Write the tensors of a sample in fp32, those named in `half` in fp16.

    Raises:
        WeightFileError: the file cannot be written.
    """
    kept = set(half)
    state = {name: (value.half() if name in kept else value.float()).cpu() for name, value in sample.items()}
    write_state(path, state, {})


def read_sample(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a sample, in fp32. Raises WeightFileError if one is missing or the file is damaged."""
    state, _ = read_state(path)
    missing = sorted(set(names) - state.keys())
    if missing:
        raise WeightFileError(
            f"{path}: expected an encoded sample, got a file without {', '.join(missing)}. Remove it."
        )
    return {name: state[name].float() for name in names}
