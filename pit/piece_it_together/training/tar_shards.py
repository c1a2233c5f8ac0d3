"""Datasets in tar archives as WebDataset writes them, read as a stream: nothing is unpacked to disk.

The files of a concept follow each other and share a key, which ends at the first dot of the file name:
`KEY.target.png` is its target, and every other picture is a part, in counting order, such as `KEY.0.png` or
`KEY.horns.jpg`. A folder in the key is the group of the concept.
"""
from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path, PurePosixPath

from ...files.pictures import PICTURE_ENDINGS, PackedPicture, Skipped, counting_order
from ...files.plain_json import read_json
from ...files.whole import write_whole
from ...messages import quoted
from .dataset import Concept

ENDING = ".tar"
TARGET = "target"
READ = "read_shards.json"
MOST_BYTES = 50_000_000  # of one picture: it is held in memory
MOST_PARTS = 256  # of one concept: they are held in memory, too
LONGEST_NAME = 500


def tar_shards(path: Path) -> list[Path]:
    """The archives in a folder, by name; a path to a single one is that one. Raises OSError."""
    if path.suffix.lower() == ENDING and path.is_file():
        return [path]
    if not path.is_dir():
        return []
    return sorted(
        each for each in path.iterdir()
        if each.suffix.lower() == ENDING and each.is_file() and not each.name.startswith(".")
    )


def concepts_in(shard: Path, skipped: list[Skipped]) -> Iterator[Concept]:
    """The concepts of an archive, one after the other; what cannot be used goes to `skipped`.

    An archive that is damaged or cut is there itself; what stands before the damage is used.
    """
    seen: set[str] = set()
    for key, members in groupby(pictures_in(shard, skipped), lambda found: found[0]):
        # Not all of an endless one: what is left over is read past, one picture at a time.
        some = [member for _, member in islice(members, MOST_PARTS + 2)]
        concept = concept_of(shard, key, some, skipped)
        if concept is None:
            continue
        if concept.name in seen:
            skipped.append(Skipped(shard / key, "the same name as another, or files that are not in a row"))
            continue
        seen.add(concept.name)
        yield concept


def pictures_in(shard: Path, skipped: list[Skipped]) -> Iterator[tuple[str, PackedPicture]]:
    """The pictures in an archive with their keys."""
    try:
        with tarfile.open(shard, "r|") as archive:
            yield from members_of(archive, shard, skipped)
    except Exception as error:  # tarfile meets damaged archives with errors of every kind
        skipped.append(Skipped(shard, f"a tar archive that cannot be read to its end: {error}"))


def members_of(
    archive: tarfile.TarFile, shard: Path, skipped: list[Skipped]
) -> Iterator[tuple[str, PackedPicture]]:
    """The same for an open archive. Raises TarError, OSError and others if it is damaged."""
    for info in archive:
        # A stream keeps a list of what has gone by, which would grow with the archive.
        archive.members.clear()
        path = PurePosixPath(info.name)
        key, _, rest = path.name.partition(".")
        why = why_not(info, path, key)
        if why is None:
            content = archive.extractfile(info).read()
            digest = hashlib.sha256(content).hexdigest()
            yield (path.parent / key).as_posix(), PackedPicture(rest, shard / info.name, content, digest)
        elif why:
            skipped.append(Skipped(shard / quoted(info.name), why))


def why_not(info: tarfile.TarInfo, path: PurePosixPath, key: str) -> str | None:
    """Why a member is not used, "" if that needs no telling; None for a picture."""
    if info.isdir():
        return ""
    # Never unpacked, so that no name can lead anywhere; but who writes such names means no good.
    plain = info.name.isprintable() and len(info.name) <= LONGEST_NAME
    if not info.isfile() or info.issparse() or path.is_absolute() or ".." in path.parts or not plain:
        return "not an ordinary file with a plain name"
    if path.suffix.lower() not in PICTURE_ENDINGS:
        return "" if path.suffix.lower() in (".json", ".txt", ".cls") else "not a picture"
    if not key or path.name.count(".") < 2:
        return "neither KEY.target.png (a target) nor KEY.0.png (a part)"
    return f"more than {MOST_BYTES} bytes" if info.size > MOST_BYTES else None


def concept_of(
    shard: Path, key: str, members: list[PackedPicture], skipped: list[Skipped]
) -> Concept | None:
    """The concept of these pictures; None, and an entry in `skipped`, if there is none."""
    named = {PurePosixPath(member.name).stem: member for member in members}
    target = named.pop(TARGET, None)
    parts = [named[name] for name in sorted(named, key=lambda name: (counting_order(name), name))]
    if len(members) > MOST_PARTS + 1:
        skipped.append(Skipped(shard / key, f"more than {MOST_PARTS} parts"))
    elif len(members) != len(parts) + (target is not None):
        skipped.append(Skipped(shard / key, "pictures whose names differ only in their ending"))
    elif target is None:
        skipped.append(Skipped(shard / key, "a part without its target"))
    elif not parts:
        skipped.append(Skipped(shard / key, "a target without parts"))
    else:
        group = PurePosixPath(key).parent.as_posix()
        # With the name of the archive: many number their keys from 0 in each.
        return Concept(f"{shard.stem}/{key}", target, tuple(parts), "" if group == "." else group)
    return None


class ReadShards:
    """Which archives are encoded to their end, so that they need not be read again; a file in the cache.

    An archive is known by name, size and time; one that has only been copied is read again, and what the
    cache holds of it is kept.
    """

    def __init__(self, folder: Path):
        self.path = folder / READ
        try:
            found = read_json(self.path)
        except (OSError, ValueError):
            found = None
        # Without it the archives are read again, which changes nothing but the time that it takes.
        self.known: dict[str, list[int]] = found if isinstance(found, dict) else {}

    def holds(self, shard: Path) -> bool:
        """Whether this archive is encoded to its end, and has not changed since. Raises OSError."""
        return self.known.get(shard.name) == stamp(shard)

    def add(self, *shards: Path) -> None:
        """Note these archives. Raises OSError."""
        self.merge({shard.name: stamp(shard) for shard in shards})

    def merge(self, others: dict[str, list[int]]) -> None:
        """Note what others have read. Raises OSError."""
        self.known |= others
        write_whole(self.path, json.dumps(self.known, indent=1, sort_keys=True).encode())


def stamp(shard: Path) -> list[int]:
    """Changes with the archive. Raises OSError."""
    status = shard.stat()
    return [status.st_size, status.st_mtime_ns]
