"""Folders to train on in the published layout: pictures, and a list of what belongs together.

    train.jsonl, and test.jsonl for what is held out; one JSON object a line:
    {"target_id": ..., "reference_id": ..., "target": "images/1.jpg", "caption": "a woman ...",
     "appearance": {"face": "face/2_rgb.jpg", ...}, "mask": {"face": "face/2_mask.jpg", ...},
     "structure": {"densepose": "densepose/1_densepose.png"}}

Source: the data set DeepFashion-MultiModal-Parts2Whole and its reader (github.com/huanngzh/Parts2Whole). All
paths are relative to the folder.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files.pictures import Skipped, describe_skipped, file_inside
from ...files.plain_json import parse_json
from ...files.whole import read_small
from ...messages import quoted
from ..attention import IMAGE_TOKENS

TRAIN, TEST = "train.jsonl", "test.jsonl"
POSE = "densepose"  # the kind of the published model
EXPECTED = f"{TRAIN} with a target, a caption, references (appearance) and a pose (structure) in each line"


@dataclass(frozen=True)
class PartFiles:
    """A reference: what it is, its picture, and the mask of the part, if there is one."""

    label: str
    picture: Path
    mask: Path | None


@dataclass(frozen=True)
class Example:
    """A picture to make, its caption, its pose, and what it is made from."""

    name: str
    target: Path
    caption: str
    pose: Path
    parts: tuple[PartFiles, ...]


@dataclass(frozen=True)
class PartsDataset:
    """The content of a folder, in the order of its lists."""

    folder: Path
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    skipped: tuple[Skipped, ...]


class Fault(ValueError):
    """Why a line cannot be used, in a few words."""


def read_parts_dataset(folder: Path, pose: str = POSE) -> PartsDataset:
    """The examples of a folder; no picture is opened.

    Args:
        pose: which kind of pose is learned, by its name in `structure`.
    Raises:
        FileNotFoundError: no such folder.
        ValueError: a list that cannot be read, or no example to train on.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder with {EXPECTED}, got no folder at {folder}.")
    skipped: list[Skipped] = []
    examples, held_out = (read_list(folder, name, pose, skipped) for name in (TRAIN, TEST))
    if not examples:
        found = "; ".join(describe_skipped(skipped, folder)) or "no such list"
        raise ValueError(f"Expected {EXPECTED} in {folder}, got: {found}.")
    return PartsDataset(folder, tuple(examples), tuple(held_out), tuple(skipped))


def read_list(folder: Path, name: str, pose: str, skipped: list[Skipped]) -> list[Example]:
    """The examples of a list, none if there is no such list; lines that cannot be used go to `skipped`.

    Raises:
        ValueError: the list is no text.
    """
    path = folder / name
    if not path.is_file():
        return []
    try:
        lines = read_small(path).decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a list in UTF-8, got another file ({error}). Write it again.") \
            from error
    found: dict[str, Example] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            example = example_of(folder, line, pose, number)
            found.setdefault(example.name, example)
        except Fault as error:
            skipped.append(Skipped(path.with_name(f"{name}, line {number}"), str(error)))
    return list(found.values())


def example_of(folder: Path, line: str, pose: str, number: int) -> Example:
    """The example of a line. Raises Fault if it cannot be used."""
    try:
        content = parse_json(line)
    except ValueError as error:
        raise Fault("a line that is no JSON") from error
    if not isinstance(content, dict):
        raise Fault("a line that is no JSON object")
    caption = content.get("caption")
    if not isinstance(caption, str):
        raise Fault("a line without a caption")
    target = listed_file(folder, content.get("target"))
    poses, pictures, masks = (table(content, name) for name in ("structure", "appearance", "mask"))
    if pose not in poses:
        raise Fault(f"a line without a pose of the kind {quoted(pose)}")
    if not 1 <= len(pictures) <= IMAGE_TOKENS:
        raise Fault(f"a line that has not 1 to {IMAGE_TOKENS} references")
    parts = tuple(
        PartFiles(label, listed_file(folder, path),
                  listed_file(folder, masks[label]) if label in masks else None)
        for label, path in pictures.items()
    )
    ids = [str(content.get(key, number)) for key in ("target_id", "reference_id")]
    # Of one pair of people there may be several lines, with other parts.
    name = "/".join([*ids, *sorted(pictures)])
    return Example(name, target, caption, listed_file(folder, poses[pose]), parts)


def table(content: dict[str, Any], name: str) -> dict[str, Any]:
    """What a line says by name; Fault unless it is an object."""
    found = content.get(name, {})
    if not isinstance(found, dict) or not all(key.strip() for key in found):
        raise Fault(f"a line whose {name} is no list of paths by name")
    return found


def listed_file(folder: Path, path: object) -> Path:
    """The file that a line names. Raises Fault unless it is in the folder."""
    # Written on Windows, maybe, where paths have other slashes.
    found = file_inside(folder, folder / path.replace("\\", "/")) if isinstance(path, str) else None
    if found is None:
        raise Fault("a line whose pictures are not all in the folder")
    return found


def describe_parts_dataset(dataset: PartsDataset) -> str:
    """A report of a few lines."""
    first = f"{dataset.folder}: {len(dataset.examples)} examples, {len(dataset.held_out)} held out"
    return "\n".join([first, *describe_skipped(dataset.skipped, dataset.folder)])
