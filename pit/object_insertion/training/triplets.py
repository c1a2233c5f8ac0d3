"""Folders of triplets in the published layout: a scene, an object, and the scene with the object in it.

    metadata.csv with the columns original_image, object_image and target_image, each a path
    or, without it, original_image/NAME.jpg, object_image/NAME.jpg and target_image/NAME.jpg

All of it may lie in a folder `train`, as the published scripts write it.
"""
from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ...files.pictures import Skipped, describe_skipped, file_inside, list_pictures, same_name
from ...files.whole import read_small
from ...messages import quoted

TRAIN, METADATA = "train", "metadata.csv"
SCENE, OBJECT, TARGET = "original_image", "object_image", "target_image"
COLUMNS = (SCENE, OBJECT, TARGET)
NAMES = ("img_id", "id")
"""The column that names a triplet, in the two published scripts."""
MISSING = ("", "missing_file")
EXPECTED = f"{METADATA} with the columns {', '.join(COLUMNS)}, or three folders of these names"


@dataclass(frozen=True)
class Triplet:
    """The files of one triplet, and its name."""

    name: str
    scene: Path
    object: Path
    target: Path


@dataclass(frozen=True)
class TripletDataset:
    """The content of a folder; `triplets` are sorted by name."""

    folder: Path
    triplets: tuple[Triplet, ...]
    skipped: tuple[Skipped, ...]


def read_triplets(folder: Path) -> TripletDataset:
    """The triplets of a folder, by their list or by the names of their files; no picture is opened.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a list that cannot be read, or no triplet.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder with {EXPECTED}, got no folder at {folder}.")
    root = folder / TRAIN if (folder / TRAIN).is_dir() else folder
    listed = (root / METADATA).is_file()
    triplets, skipped = (listed_triplets if listed else paired_triplets)(root)
    if not triplets:
        found = "; ".join(describe_skipped(skipped, folder)) or "nothing"
        raise ValueError(f"Expected {EXPECTED} in {folder}, got: {found}.")
    return TripletDataset(folder, tuple(sorted(triplets, key=lambda each: each.name)), tuple(skipped))


def listed_triplets(root: Path) -> tuple[list[Triplet], list[Skipped]]:
    """The triplets of the list in a folder, and what of it cannot be used.

    Raises:
        ValueError: the list cannot be read, or lacks a column.
    """
    path = root / METADATA
    try:
        table = csv.DictReader(io.StringIO(read_small(path).decode("utf-8-sig"), newline=""))
        rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a table in UTF-8, got another file ({error}). Write it again.") \
            from error
    missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, got none of the name {', '.join(missing)}. "
            "Write it as the published scripts do."
        )
    triplets: dict[str, Triplet] = {}
    skipped = []
    for number, row in enumerate(rows, 1):
        name = next((row[key] for key in NAMES if row.get(key)), str(number))
        files = [listed_file(root, row[column]) for column in COLUMNS]
        if None in files:
            why = "a line of the list whose pictures are not all in the folder"
            skipped.append(Skipped(root / f"{METADATA}, {quoted(name)}", why))
        elif name in triplets:
            skipped.append(Skipped(root / f"{METADATA}, {quoted(name)}", "the same name as another line"))
        else:
            triplets[name] = Triplet(name, *files)
    return list(triplets.values()), skipped


def listed_file(root: Path, text: str | None) -> Path | None:
    """The file that a list names, from its own folder or the one above; None if it is not there."""
    if text is None or text.strip() in MISSING:
        return None
    top = root.parent if root.name == TRAIN else root
    places = (file_inside(top, place / text.strip()) for place in (root, top))
    return next(filter(None, places), None)


def paired_triplets(root: Path) -> tuple[list[Triplet], list[Skipped]]:
    """The triplets of the three folders, by the names of their pictures, and what does not pair."""
    skipped: list[Skipped] = []
    found: dict[str, dict[str, Path]] = {}
    for column in COLUMNS:
        pictures, others = list_pictures(root / column) if (root / column).is_dir() else ([], [])
        skipped += others
        for path in pictures:
            found.setdefault(same_name(path.stem), {})[column] = path
    triplets = []
    for files in found.values():
        if len(files) == len(COLUMNS):
            triplets.append(Triplet(files[SCENE].stem, files[SCENE], files[OBJECT], files[TARGET]))
        else:
            why = "a picture without the two others of its name"
            skipped += [Skipped(path, why) for path in files.values()]
    return triplets, skipped


def describe_triplets(dataset: TripletDataset) -> str:
    """A report of a few lines."""
    first = f"{dataset.folder}: {len(dataset.triplets)} triplets"
    return "\n".join([first, *describe_skipped(dataset.skipped, dataset.folder)])
