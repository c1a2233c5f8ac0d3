"""Folders of part sets as the node Load Part Sets reads them, and names that can begin those of files."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from . import Problem

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_LONGEST = 80
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices on Windows


@dataclass(frozen=True)
class PartSet:
    """The pictures of one subfolder; `name` is a plain file name on every system."""

    name: str
    pictures: tuple[Path, ...]

    def contents(self) -> tuple[str, dict[str, bytes]]:
        """A text that is the same for the same pictures, and the pictures by their names. Raises OSError."""
        files = {path.name: path.read_bytes() for path in self.pictures}
        digest = hashlib.sha256(self.name.encode())
        for name, content in files.items():
            digest.update(name.encode("utf-8", "surrogatepass") + hashlib.sha256(content).digest())
        return digest.hexdigest()[:12], files


def read_part_sets(folder: Path) -> dict[str, PartSet]:
    """The sets in a folder by their names. Raises Problem if there is none."""
    try:
        entries = sorted(each for each in folder.iterdir() if each.is_dir() and not _is_hidden(each))
    except OSError as error:
        raise Problem(f"Expected a folder of part sets, got none at {folder} ({error.strerror}).") from error
    sets: dict[str, PartSet] = {}
    for entry in entries:
        pictures = tuple(sorted(
            each for each in entry.iterdir()
            if each.is_file() and each.suffix.lower() in PICTURES and not _is_hidden(each)
        ))
        if pictures:
            found = PartSet(plain_name(entry.name), pictures)
            # In lower case too: not every file system can tell results of such names apart.
            if found.name.casefold() in {name.casefold() for name in sets}:
                raise Problem(f"Expected sets of different names in {folder}, got {found.name!r} twice.")
            sets[found.name] = found
    if not sets:
        raise Problem(
            f"Expected a subfolder with pictures for each set in {folder}, got none. Put the part pictures "
            "of each set into a subfolder of its own."
        )
    return sets


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def plain_name(name: str) -> str:
    """A name without what file systems do not allow; one that must be changed ends in digits of its hash."""
    composed = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    plain = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", composed).strip(". ")
    plain = f"_{plain}" if _RESERVED.fullmatch(plain) else plain
    if plain and plain == composed and len(plain.encode()) <= _LONGEST:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain.encode()[:_LONGEST].decode(errors='ignore')}-{digest}"
