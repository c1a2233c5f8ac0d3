"""Folders for an IP-LoRA in the published layout: targets, their captions, and what the adapter sees of each.

    targets/NAME.png, targets/NAME.txt, refs/NAME_ref.png

Source: the IP-LoRA trainer of Piece it Together (github.com/eladrich/PiT). It pairs by what precedes the
first `_ref` in a reference's name, and fails on a reference without this ending.
"""
from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...files.pictures import PICTURE_ENDINGS, Skipped, describe_skipped, same_name
from ...files.whole import check_ordinary
from .prompts import CHARACTER_SHEET, scene_caption

ENDING = "_ref"
MODES: dict[str, Callable[[str], str]] = {
    "character sheet": lambda text: CHARACTER_SHEET,
    "creature in scene": scene_caption,
    "captions as they are": str.strip,
}
EXPECTED = "targets/NAME.png with its caption targets/NAME.txt and its reference refs/NAME_ref.png"


@dataclass(frozen=True)
class LoraSample:
    """A picture to learn, what its IP+ tokens are made of, and the words for it."""

    name: str
    target: Path
    reference: Path
    caption: str


@dataclass(frozen=True)
class LoraDataset:
    """The content of a folder; `samples` are sorted by name."""

    folder: Path
    samples: tuple[LoraSample, ...]
    skipped: tuple[Skipped, ...]


def read_lora_dataset(folder: Path, mode: str) -> LoraDataset:
    """The samples of a folder, found by their names alone; no picture is opened.

    As published, a sample is a name with a target, a caption and a reference. Fixed: a reference belongs to
    the target with the whole name before its last `_ref`, so that names may contain `_ref` themselves, and
    references may do without this ending; what does not pair is named instead of breaking the training. Of
    pictures with the same name, png is preferred to jpg, as published.

    Args:
        mode: one of `MODES`: which captions are learned.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown mode, or no sample in it.
    """
    if mode not in MODES:
        raise ValueError(f"Expected one of the prompt modes {', '.join(MODES)}, got {mode!r}.")
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder with {EXPECTED}, got no folder at {folder}.")
    skipped: list[Skipped] = []
    targets = pictures_by_name(folder / "targets", skipped)
    references = {
        key.removesuffix(ENDING): path for key, path in pictures_by_name(folder / "refs", skipped).items()
    }
    samples = []
    for key, target in targets.items():
        # What is left in `references` afterwards has no target.
        reference = references.pop(key, None)
        caption = read_caption(target.with_suffix(".txt"), mode)
        if reference is None:
            skipped.append(Skipped(target, "a target without a reference"))
        elif isinstance(caption, Skipped):
            skipped.append(caption)
        else:
            samples.append(LoraSample(target.stem, target, reference, caption))
    skipped += [Skipped(path, "a reference without a target") for path in references.values()]
    if not samples:
        found = "; ".join(describe_skipped(skipped, folder)) or "nothing"
        raise ValueError(f"Expected {EXPECTED} in {folder}, got: {found}.")
    return LoraDataset(folder, tuple(sorted(samples, key=lambda each: each.name)), tuple(skipped))


def pictures_by_name(folder: Path, skipped: list[Skipped]) -> dict[str, Path]:
    """The pictures in a folder by name, png before others; whatever else is there is added to `skipped`."""
    found: dict[str, Path] = {}
    visible = (path for path in folder.glob("*") if not path.name.startswith("."))
    for path in sorted(visible, key=lambda path: (path.suffix.lower() != ".png", path.name)):
        if path.suffix.lower() == ".txt":  # captions, read with their targets
            continue
        if path.suffix.lower() not in PICTURE_ENDINGS:
            skipped.append(Skipped(path, f"not one of {', '.join(PICTURE_ENDINGS)}"))
        elif not path.is_file():
            skipped.append(Skipped(path, "not an ordinary file"))
        elif found.setdefault(same_name(path.stem), path) is not path:
            skipped.append(Skipped(path, "the same name as another"))
    return found


def read_caption(path: Path, mode: str) -> str | Skipped:
    """The caption in a mode, or why there is none. As published, sheets need the file, whatever is in it."""
    try:
        check_ordinary(path)
        return MODES[mode](read_any_unicode(path))
    except FileNotFoundError:
        return Skipped(path, "a missing caption")
    except (OSError, UnicodeDecodeError):
        return Skipped(path, "a caption that cannot be read")
    except ValueError:
        return Skipped(path, 'a caption without "STYLE, ... in a SCENE"')


def read_any_unicode(path: Path) -> str:
    """A text in UTF-8, or in the encoding that its byte-order mark tells; without that mark.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it has another encoding.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


def describe_lora_dataset(dataset: LoraDataset) -> str:
    """A report of a few lines."""
    captions = len({sample.caption for sample in dataset.samples})
    first = f"{dataset.folder}: {len(dataset.samples)} targets with references, {captions} captions"
    return "\n".join([first, *describe_skipped(dataset.skipped, dataset.folder)])
