"""Reading folders of targets and parts: which pictures belong together, which cannot be used, and why."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ...files.pictures import (
    PackedPicture,
    PictureError,
    Skipped,
    describe_skipped,
    list_pictures,
    listing,
    open_picture,
    same_name,
)
from ...images import contact_sheet

_THUMBNAIL = 128
_SHEET_PARTS = 8

_EXPECTED = (
    "target/NAME.png with its parts parts/NAME/0.png, parts/NAME/1.png and so on, or pictures named as "
    "published, SUBFOLDER/A_B.jpg with its parts SUBFOLDER/A_B_0.jpg, SUBFOLDER/A_B_1.jpg and so on"
)
_ADVICE = "Point to such a folder, or make one from plain pictures with make-parts."


@dataclass(frozen=True)
class Concept:
    """A target and its parts, in order.

    `name` is the target's path below the dataset, with forward slashes and without its ending; `group` is the
    sub-folder, whose targets resemble each other ("" if there are no sub-folders).
    """

    name: str
    target: Path | PackedPicture
    parts: tuple[Path | PackedPicture, ...]
    group: str


@dataclass(frozen=True)
class Dataset:
    """The content of a folder.

    Attributes:
        layout: "published" or "folders".
        concepts: sorted by name.
        targets: of each group, by name; those without parts as well, for references.
    """

    folder: Path
    layout: str
    concepts: tuple[Concept, ...]
    skipped: tuple[Skipped, ...]
    targets: Mapping[str, Mapping[str, Path]]


def read_dataset(folder: Path) -> Dataset:
    """The concepts of `folder`, found by their names alone; no picture is opened.

    There are two layouts. "folders": `target/NAME.png` with `parts/NAME/*.png`. "published": one level of
    sub-folders, in which the number of pieces between underscores decides, two for a target (`A_B.jpg`) and
    three for a part of it (`A_B_0.jpg`). The published loader reads only `.jpg`, and turns a target without
    parts into a white picture to learn from; here `.jpeg`, `.png` and `.webp` count, too, and such targets
    are skipped. Of names that differ only in their ending, in case or in Unicode form, the first is kept.
    Hidden files do not count.

    Raises FileNotFoundError if there is no such folder, ValueError if there is no target with parts in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder with a dataset, got no folder at {folder}.")
    own = (folder / "target").is_dir() and (folder / "parts").is_dir()
    targets, parts, skipped = _read_own(folder) if own else _read_published(folder)
    concepts, groups = [], defaultdict(dict)
    for key, target in targets.items():
        its_parts = parts.pop(key, [])
        name = target.relative_to(folder).with_suffix("").as_posix()
        groups[key[0]][name] = target
        if its_parts:
            concepts.append(Concept(name, target, tuple(its_parts), group=key[0]))
        else:
            skipped.append(Skipped(target, "a target without parts"))
    skipped += [Skipped(path, "a part without its target") for paths in parts.values() for path in paths]
    if not concepts:
        found = "; ".join(describe_skipped(skipped, folder)) or "nothing"
        raise ValueError(f"Expected {_EXPECTED}; got in {folder}: {found}. {_ADVICE}")
    # By name and not as the file system lists them: what a seed draws must not depend on the machine.
    concepts.sort(key=lambda each: each.name)
    skipped.sort(key=lambda each: each.path)
    return Dataset(folder, "folders" if own else "published", tuple(concepts), tuple(skipped), groups)


def describe(dataset: Dataset) -> str:
    """A report of a few lines: the layout, how many concepts and parts, and what was skipped and why."""
    counts = [len(concept.parts) for concept in dataset.concepts]
    groups = len({concept.group for concept in dataset.concepts})
    layout = {"published": f"as published, {groups} sub-folders", "folders": "target/ and parts/"}
    lines = [
        f"{dataset.folder}: {len(counts)} concepts ({layout[dataset.layout]})",
        f"parts: {sum(counts)}, {sum(counts) / len(counts):.1f} per concept, at most {max(counts)}",
    ]
    return "\n".join(lines + describe_skipped(dataset.skipped, dataset.folder))


def dataset_sheet(dataset: Dataset, count: int = 8) -> Image.Image:
    """A contact sheet (RGB): `count` concepts spread over the dataset, one per row: target, up to 8 parts.

    An unreadable picture shows as a red cross.
    """
    # Spread, as neighbors are often alike: the first eight might all come from one sub-folder.
    total = len(dataset.concepts)
    rows = min(count, total)
    shown = [dataset.concepts[i * total // rows] for i in range(rows)]
    columns = 1 + min(max(len(concept.parts) for concept in shown), _SHEET_PARTS)
    pictures: list[Image.Image | None] = []
    for concept in shown:
        row = [_thumbnail(path) for path in (concept.target, *concept.parts)][:columns]
        pictures += row + [None] * (columns - len(row))
    return contact_sheet(pictures, columns, _THUMBNAIL)


Key = tuple[str, str]  # group, same_name of the target without ending
Found = tuple[dict[Key, Path], dict[Key, list[Path]], list[Skipped]]


def _read_published(folder: Path) -> Found:
    targets: dict[Key, Path] = {}
    parts: dict[Key, list[Path]] = defaultdict(list)
    skipped = []
    for entry in listing(folder):
        if not entry.is_dir():
            skipped.append(Skipped(entry, "outside the sub-folders"))
            continue
        pictures, refused = list_pictures(entry)
        skipped += refused
        for path in pictures:
            pieces = path.stem.split("_")
            if len(pieces) == 2:
                targets[entry.name, same_name(path.stem)] = path
            elif len(pieces) == 3:
                parts[entry.name, same_name("_".join(pieces[:2]))].append(path)
            else:
                skipped.append(Skipped(path, "neither A_B (a target) nor A_B_0 (a part)"))
    return targets, parts, skipped


def _read_own(folder: Path) -> Found:
    pictures, skipped = list_pictures(folder / "target")
    parts: dict[Key, list[Path]] = {}
    for entry in listing(folder / "parts"):
        if not entry.is_dir():
            skipped.append(Skipped(entry, "outside the sub-folders"))
        elif ("", same_name(entry.name)) in parts:
            skipped.append(Skipped(entry, "the same name as another"))
        else:
            parts["", same_name(entry.name)], refused = list_pictures(entry)
            skipped += refused
    return {("", same_name(path.stem)): path for path in pictures}, parts, skipped


def _thumbnail(path: Path) -> Image.Image:
    frame = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "white")
    try:
        image = open_picture(path)
    except PictureError:
        pen = ImageDraw.Draw(frame)
        pen.line((8, 8, _THUMBNAIL - 8, _THUMBNAIL - 8), "red", 4)
        pen.line((8, _THUMBNAIL - 8, _THUMBNAIL - 8, 8), "red", 4)
        return frame
    image.thumbnail((_THUMBNAIL - 8, _THUMBNAIL - 8))
    frame.paste(image, ((_THUMBNAIL - image.width) // 2, (_THUMBNAIL - image.height) // 2))
    return frame
