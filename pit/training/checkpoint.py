"""Checkpoints that survive anything: a kill at any moment, a full disk, a truncated file.

A checkpoint is a folder `step_00000500` with files in the safetensors format and a manifest of their sizes
and SHA-256. Everything is written to `step_00000500.tmp` and flushed, the manifest last; then the folder is
renamed, so that one without the ending is complete. A run resumes from the newest valid one.
"""
from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..files.plain_json import read_json
from ..files.weights import WeightFileError, read_state, write_state
from ..files.whole import LEFTOVER_SECONDS, flush_folder, sha256_of, write_whole
from ..messages import quoted, shortened

MANIFEST = "manifest.json"
PARTIAL = ".tmp"
ENDING = ".tensors"  # safetensors, but under a name that no list of weight files picks up
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk; `notes` are the plain values that were saved with it."""

    folder: Path
    step: int
    notes: dict[str, object]

    def load(self, name: str) -> dict[str, Tensor]:
        """The tensors saved under a name, on the CPU. Raises WeightFileError if the file is damaged."""
        return read_state(self.folder / f"{name}{ENDING}")[0]


def write_checkpoint(
    folder: Path, step: int, states: Mapping[str, State], notes: Mapping[str, object], keep: int
) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `keep`.

    Raises:
        WeightFileError: the disk is full, or the folder cannot be written; older checkpoints are untouched.
    """
    target = folder / f"step_{step:08d}"
    partial = target.with_name(target.name + PARTIAL)
    clean_partial(folder, partial)
    try:
        partial.mkdir(parents=True)
        # Data first, manifest last: a manifest vouches for files that are already on disk.
        files = {}
        for name, state in states.items():
            path = partial / f"{name}{ENDING}"
            write_state(path, state, {})
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest = partial / MANIFEST
        content = {"step": step, "files": files, "notes": dict(notes)}
        write_whole(manifest, json.dumps(content).encode())
        # A step is written twice only if its first checkpoint was damaged. That one must go: a folder cannot
        # be renamed onto one that has files in it.
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    except (OSError, WeightFileError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise WeightFileError(f"The checkpoint {target} could not be written: {error}") from error
    # The old ones go only once the new name is on disk: at no moment is there no checkpoint to resume from.
    flush_folder(folder)
    for old in checkpoint_folders(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def clean_partial(folder: Path, own: Path) -> None:
    """Remove the unfinished checkpoint that is to be written, and those that killed processes have left."""
    oldest = time.time() - LEFTOVER_SECONDS
    for path in folder.glob(f"step_*{PARTIAL}"):
        with suppress(OSError):  # another process may remove it at the same time
            if path == own or path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint of a run, and why each newer one was skipped."""
    passed_over = []
    for path in checkpoint_folders(folder):
        try:
            return read_manifest(path), passed_over
        except (OSError, ValueError) as error:
            passed_over.append(shortened(f"{path.name}: {error}"))
    return None, passed_over


def read_manifest(path: Path) -> Checkpoint:
    """Check a checkpoint against its manifest. Raises ValueError or OSError if it is damaged."""
    manifest = read_json(path / MANIFEST)
    try:
        step, notes, files = manifest["step"], manifest["notes"], manifest["files"]
        listed = {name: (expected["bytes"], expected["sha256"]) for name, expected in files.items()}
        sound = type(step) is int and step >= 0 and isinstance(notes, dict)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected steps, notes and files in {MANIFEST}, got others ({error!r})") from error
    if not sound or any(name != Path(name).name for name in listed):
        raise ValueError(f"expected a step and the names of files in {MANIFEST}, got something else")
    for name, (size, checksum) in listed.items():
        file = path / name
        # The size first: a truncated file is found without reading gigabytes.
        if file.stat().st_size != size:
            raise ValueError(f"expected {quoted(size)} bytes in {name}, got {file.stat().st_size}")
        if sha256_of(file) != checksum:
            raise ValueError(f"expected the checksum of the manifest for {name}, got another one")
    return Checkpoint(path, step, notes)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if re.fullmatch(r"step_\d{8}", path.name))
    # The names are padded with zeros, so that their order is that of the steps.
    return sorted(found, key=lambda path: path.name, reverse=True)
