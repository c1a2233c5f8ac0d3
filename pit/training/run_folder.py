"""Whose run a folder holds: its settings in `run.json`, which a run that is resumed must share."""
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files.plain_json import read_json
from ..files.records import differing_models, models_from_json
from ..files.weights import WeightFileError
from ..files.whole import not_written, write_whole
from ..messages import ShortError, quoted
from .checkpoint import checkpoint_folders

RUN = "run.json"


def check_run(folder: Path, identity: dict[str, Any], results: Iterable[str]) -> None:
    """Compare a run with the one in a folder, if there is one; nothing is written.

    Raises:
        ValueError: they differ, or one of the `results` is there although no run made it.
    """
    path = folder / RUN
    if path.is_file():
        # Without anything to resume it is left over from a start that failed, and stands in nobody's way.
        if has_checkpoint(folder) or any((folder / name).exists() for name in results):
            check_settings(path, identity)
        return
    # A result without its run came from elsewhere, and would be overwritten when this run ends.
    for name in results:
        if (folder / name).exists():
            raise ValueError(
                f"{folder}: expected no {name} without its run, got one. Give this run another name."
            )


def check_settings(path: Path, identity: dict[str, Any]) -> None:
    """Compare a run with the settings in a `run.json`. Raises ValueError if they differ or are damaged."""
    try:
        different = differences(read_json(path), identity)
    except (ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ShortError(
            f"{path}: expected the settings of a run, got damaged ones ({error!r}). Give this run another "
            "name, or remove the folder."
        ) from error
    if different:
        raise ShortError(
            f"{path.parent}: expected a run with the same settings, got another one: {', '.join(different)}. "
            "Give this run another name, or use the settings of the one in the folder."
        )


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can be resumed."""
    return bool(checkpoint_folders(folder / "checkpoints"))


@contextmanager
def taken(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Write `run.json` before the checkpoint that is written inside; a first one is removed if that fails.

    Raises:
        WeightFileError: the folder cannot be written.
    """
    # Before the checkpoint, since a checkpoint without `run.json` could be resumed with any settings.
    path = folder / RUN
    first = not path.is_file()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(identity, indent=1).encode())
    except OSError as error:
        raise WeightFileError(not_written(path, error)) from error
    try:
        yield
    except BaseException:
        # A checkpoint that is there in spite of the error must not be resumed with other settings.
        if first and not has_checkpoint(folder):
            path.unlink(missing_ok=True)
        raise


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The settings in which an earlier run differs from the wanted one, in words."""
    # The earlier run went through JSON, which turns tuples into lists: compare like with like.
    wanted = json.loads(json.dumps(wanted))
    models = wanted.pop("models", {})
    earlier = found.pop("models", None)
    if models and earlier is None:
        # Up to 0.5.0, the hash of the dataset depended on digits that change with the number of threads.
        found, wanted = ({**run, "dataset": None} for run in (found, wanted))
    changed = differing_models(models_from_json(earlier), models_from_json(models)) if earlier else []
    before, now = ({**run, **run["recipe"], **run["model"]} for run in (found, wanted))
    keys = [key for key in now if key not in ("recipe", "model") and before.get(key) != now[key]]
    # Models are compared by their fingerprints, not listed: their numbers tell a user nothing.
    settings = [f"{key} was {_told(before.get(key))} and is now {_told(now[key])}" for key in keys]
    return settings + [f"the {part} was another one" for part in changed]


def _told(value: object) -> str:
    return "not set" if value is None else quoted(value)
