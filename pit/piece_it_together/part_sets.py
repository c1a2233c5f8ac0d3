"""Folders in which each subfolder is one set of part pictures."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from ..files.pictures import Skipped, file_name, list_pictures, listing, open_picture, same_name
from ..messages import ShortError

MOST_PICTURES = 500  # at once: at the largest size they take 6 GB as tensors
MOST_PARTS = 64  # of one set
LONGEST_SIDE = 1024  # as on the canvas that parts are placed on


@dataclass(frozen=True)
class PartSet:
    """The pictures of one subfolder; `name` is a plain file name on every system."""

    name: str
    pictures: tuple[Path, ...]


def read_part_sets(folder: Path) -> tuple[list[PartSet], list[Skipped]]:
    """The sets in a folder, 2 before 10, and what in it is not used; no picture is opened.

    Raises ValueError if there is no set.
    """
    sets: list[PartSet] = []
    skipped, seen = [], set()
    for entry in listing(folder):
        if not entry.is_dir():
            skipped.append(Skipped(entry, "outside the subfolders"))
            continue
        pictures, refused = list_pictures(entry)
        skipped += refused
        why = _why_no_set(entry.name, pictures, seen)
        if why is None:
            sets.append(PartSet(file_name(entry.name), tuple(pictures)))
        else:
            skipped.append(Skipped(entry, why))
    if not sets:
        raise ValueError(
            f"Expected a subfolder with pictures for each set in {folder}, got none. Put the part pictures "
            "of each set into a subfolder of its own."
        )
    return sets, skipped


def _why_no_set(name: str, pictures: Sequence[Path], seen: set[str]) -> str | None:
    if not pictures:
        return "a subfolder without pictures"
    if len(pictures) > MOST_PARTS:
        return f"more than {MOST_PARTS} pictures in a set"
    try:
        same = same_name(file_name(name))
    except ShortError:
        return "a name that leads to another folder"
    if same in seen:
        return "the same name as another"
    seen.add(same)
    return None


def some_sets(sets: Sequence[PartSet], first: int, most: int) -> Sequence[PartSet]:
    """At most `most` sets from the `first` on, counted from 1.

    Raises ValueError if there is none, or if they have more pictures than may be open at once.
    """
    chosen = sets[first - 1:first - 1 + most]
    if not chosen:
        raise ValueError(
            f"Expected first to be at most {len(sets)}, the number of sets, got {first}. Lower it."
        )
    count = sum(len(each.pictures) for each in chosen)
    if count > MOST_PICTURES:
        raise ValueError(
            f"Expected at most {MOST_PICTURES} pictures at once, got {count} in {len(chosen)} sets. Lower "
            "most, and raise first for the next run."
        )
    return chosen


def open_parts(paths: Sequence[Path]) -> list[Image.Image]:
    """The pictures of a set as RGB on white, all of one size; those of one size stay as they are.

    Others are scaled to the same longest side, in the middle of a white square. Raises PictureError.
    """
    pictures = [open_picture(path) for path in paths]
    for picture in pictures:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    if len({picture.size for picture in pictures}) == 1:
        return pictures
    side = max(max(picture.size) for picture in pictures)
    return [ImageOps.pad(each, (side, side), Image.Resampling.LANCZOS, color="white") for each in pictures]
