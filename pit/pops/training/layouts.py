"""Reading the folders that operators learn from: which files belong together, and what cannot be used.

The layouts are those that the published scripts write (github.com/pOpsPaper/pOps). The published trainer
reads only `.jpg`, and makes white pictures to learn from of whatever goes wrong; here `.jpeg`, `.png` and
`.webp` count as well, and what cannot be used is left out and named. No picture is opened.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...files.pictures import Skipped, describe_skipped, list_pictures, listing
from ...messages import quoted
from ..modes import MODES, MOST_PARTS

BACKGROUNDS, RANDOMS = "backgrounds", "randoms"
RESERVED = (BACKGROUNDS, RANDOMS)
BESIDE = (".npy", ".json", ".txt")  # beside pictures, and read with them if at all
AMBIGUOUS = "counts as the same name as another"
CUT_OUT = re.compile(r"(.+)_OBJ_(\d+)")
# Save Image puts a number behind the name: dog_00001_.png, with dog_mask_00001_.png.
NUMBERED = re.compile(r"(.+?)(_inpainted|_mask|_OBJ_\d+)_(\d+)_|(mask)_\d+_")


@dataclass(frozen=True)
class Example:
    """The files of one example, by what each is.

    Attributes:
        name: its place below the dataset, with forward slashes and without an ending.
        text: what it shows, in words, where words are learned.
    """

    name: str
    files: Mapping[str, tuple[Path, ...]]
    text: str = ""

    @property
    def first(self) -> Path:
        """The file that stands for it in messages."""
        return next(iter(self.files.values()))[0]


@dataclass(frozen=True)
class OperatorDataset:
    """The content of a folder.

    Attributes:
        examples: sorted by name.
        backgrounds: pictures that objects are put onto, for the mode "scene".
        randoms: pictures that are learned without any condition.
    """

    folder: Path
    mode: str
    examples: tuple[Example, ...]
    skipped: tuple[Skipped, ...]
    backgrounds: tuple[Path, ...] = ()
    randoms: tuple[Path, ...] = ()


Found = tuple[list[Example], list[Skipped]]


def read_operator_dataset(
    folder: Path, mode: str, backgrounds: Path | None = None, randoms: Path | None = None
) -> OperatorDataset:
    """The examples of a mode in a folder, found by the names of the files alone.

    Args:
        backgrounds, randoms: folders of plain pictures; by default those of these names in `folder`.
    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unknown mode, or no example in the folder.
    """
    if mode not in MODES:
        raise ValueError(f"Expected one of {', '.join(MODES)}, got {quoted(mode)}.")
    for each in (folder, backgrounds, randoms):
        if each is not None and not each.is_dir():
            raise FileNotFoundError(f"Expected a folder with pictures, got no folder at {each}.")
    read, expected = LAYOUTS[mode]
    examples, skipped = read(folder)
    if not examples:
        found = "; ".join(describe_skipped(skipped, folder)) or "nothing"
        raise ValueError(f"Expected {expected} for the mode {mode}; got in {folder}: {found}.")
    more = (plain_pictures(backgrounds or folder / BACKGROUNDS), plain_pictures(randoms or folder / RANDOMS))
    # By name and not as the file system lists them: what a seed draws must not depend on the machine.
    examples.sort(key=lambda each: each.name)
    skipped.sort(key=lambda each: each.path)
    return OperatorDataset(folder, mode, tuple(examples), tuple(skipped), *more)


def describe_operator_dataset(dataset: OperatorDataset) -> str:
    """A report of a few lines."""
    first = f"{dataset.folder}: {len(dataset.examples)} examples for {dataset.mode}"
    for what, paths in (("backgrounds", dataset.backgrounds), ("random pictures", dataset.randoms)):
        first += f", {len(paths)} {what}" if paths else ""
    return "\n".join([first, *describe_skipped(dataset.skipped, dataset.folder)])


def plain_pictures(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder; none if there is no folder."""
    return tuple(list_pictures(folder)[0]) if folder.is_dir() else ()


def flat(folder: Path) -> tuple[dict[str, Path], list[Skipped]]:
    """The pictures directly in a folder, by their names."""
    pictures, skipped = list_pictures(folder)
    found: dict[str, Path] = {}
    for path in pictures:
        if found.setdefault(name_of(path), path) is not path:
            skipped.append(Skipped(path, AMBIGUOUS))
    skipped = [
        each for each in skipped
        if each.path.suffix.lower() not in BESIDE and each.path.name not in RESERVED
    ]
    return found, skipped


def name_of(path: Path) -> str:
    """The name of a picture without its ending, what belongs to a numbered one after its number."""
    found = NUMBERED.fullmatch(path.stem)
    if found is None:
        return path.stem
    name, what, number, mask = found.groups()
    return mask or f"{name}_{number}_{what}"


def read_texture(folder: Path) -> Found:
    """`NAME/` with one picture or more of an object, `mask.png`, and `box.json` if that is of a crop."""
    examples, skipped = [], []
    for entry in listing(folder):
        if entry.name in RESERVED:
            continue
        if not entry.is_dir():
            skipped.append(Skipped(entry, "outside the sub-folders"))
            continue
        pictures, refused = flat(entry)
        mask, box = pictures.pop("mask", None), entry / "box.json"
        skipped += refused
        if AMBIGUOUS in [each.why for each in refused]:
            skipped.append(Skipped(entry, "a folder with several masks"))
            continue
        if mask is None or not pictures:
            skipped.append(Skipped(entry, "a folder without a picture and mask.png"))
            continue
        files = {"pictures": tuple(pictures.values()), "mask": (mask,)}
        examples.append(Example(entry.name, files | ({"box": (box,)} if box.is_file() else {})))
    return examples, skipped


def read_scene(folder: Path) -> Found:
    """`NAME.jpg`, `NAME_inpainted.jpg` without the object, and its mask: `NAME_inpainted.npy` or others."""
    pictures, skipped = flat(folder)
    examples = []
    beside = {stem: path for stem, path in pictures.items() if stem.endswith(("_inpainted", "_mask"))}
    for stem in pictures.keys() - beside.keys():
        arrays = (folder / f"{stem}_inpainted.npy", folder / f"{stem}.npy")
        mask = next((path for path in arrays if path.is_file()), beside.pop(f"{stem}_mask", None))
        inpainted = beside.pop(f"{stem}_inpainted", None)
        if mask is None:
            skipped.append(Skipped(pictures[stem], "a picture without the mask of its object"))
            continue
        files = {"picture": (pictures[stem],), "mask": (mask,)}
        examples.append(Example(stem, files | ({"inpainted": (inpainted,)} if inpainted else {})))
    return examples, skipped + [Skipped(path, "without its picture") for path in beside.values()]


def read_union(folder: Path) -> Found:
    """`NAME.jpg` with two things, and their cut-outs `NAME_OBJ_0.png` and `NAME_OBJ_1.png`."""
    pictures, skipped = flat(folder)
    examples = []
    cut_outs = {stem: path for stem, path in pictures.items() if CUT_OUT.fullmatch(stem)}
    for stem in pictures.keys() - cut_outs.keys():
        both = [cut_outs.pop(f"{stem}_OBJ_{number}", None) for number in (0, 1)]
        if None in both:
            skipped.append(Skipped(pictures[stem], "a picture without two cut-outs"))
            continue
        examples.append(Example(stem, {"picture": (pictures[stem],), "objects": tuple(both)}))
    return examples, skipped + [Skipped(path, "without its picture") for path in cut_outs.values()]


def read_instruct(folder: Path) -> Found:
    """`OBJECT_PLACE_SEED.jpg`, whose name says in words what it shows."""
    pictures, skipped = flat(folder)
    examples = []
    for stem, path in pictures.items():
        text = words_in(stem)
        if text:
            examples.append(Example(stem, {"picture": (path,)}, text))
        else:
            skipped.append(Skipped(path, "a name without words"))
    return examples, skipped


def words_in(stem: str) -> str:
    """The words of a name, without the numbers at its end.

    The published trainer drops the last piece whatever it is, and takes an empty place for a word.
    """
    pieces = [piece for piece in re.split(r"[_\s]+", stem) if piece]
    while pieces and pieces[-1].isdecimal():
        pieces.pop()
    return " ".join(pieces)


def read_clothes(folder: Path) -> Found:
    """`target/NAME.png` with its parts in `parts/NAME/`, or `NAME.jpg` with labels in `NAME_mask.png`."""
    if (folder / "target").is_dir() and (folder / "parts").is_dir():
        return read_parts(folder)
    pictures, skipped = flat(folder)
    examples = []
    maps = {stem: path for stem, path in pictures.items() if stem.endswith("_mask")}
    for stem in pictures.keys() - maps.keys():
        labels = maps.pop(f"{stem}_mask", None)
        if labels is None:
            skipped.append(Skipped(pictures[stem], "a picture without its map of labels"))
            continue
        examples.append(Example(stem, {"picture": (pictures[stem],), "labels": (labels,)}))
    return examples, skipped + [Skipped(path, "without its picture") for path in maps.values()]


def read_parts(folder: Path) -> Found:
    """Targets and their parts, as Make Parts writes them."""
    targets, skipped = flat(folder / "target")
    examples = []
    for stem, target in targets.items():
        own = folder / "parts" / stem
        parts, refused = list_pictures(own) if own.is_dir() else ([], [])
        skipped += refused + [Skipped(path, f"beyond {MOST_PARTS} parts") for path in parts[MOST_PARTS:]]
        if parts:
            examples.append(Example(stem, {"picture": (target,), "parts": tuple(parts[:MOST_PARTS])}))
        else:
            skipped.append(Skipped(target, "a target without parts"))
    return examples, skipped


LAYOUTS: Mapping[str, tuple[Callable[[Path], Found], str]] = {
    "texture": (
        read_texture, "folders with pictures of one object and its mask.png (and box.json, where that is the "
        "mask of a crop)",
    ),
    "scene": (
        read_scene, "NAME.jpg with the mask of its object, NAME_inpainted.npy or NAME_mask.png, and with "
        "NAME_inpainted.jpg, the scene without it",
    ),
    "union": (read_union, "NAME.jpg with the cut-outs NAME_OBJ_0.png and NAME_OBJ_1.png"),
    "instruct": (read_instruct, "pictures whose names say what they show, such as old_chair_on_grass_17.jpg"),
    "clothes": (
        read_clothes, "target/NAME.png with its parts in parts/NAME, or NAME.jpg with the labels of the "
        "garments in NAME_mask.png",
    ),
}
