"""A token cache that several processes fill: each writes a part of its own, and one puts the parts together.

The parts lie in `parts/` in the cache, each a cache itself. What they hold is linked into the cache, where
the file system can do that, and not copied. Whatever a break leaves is put together by the next run, with
however many processes.
"""
from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...files.lock import only_process
from ...files.whole import write_whole
from .cache import MANIFEST, REFERENCE, Manifest, Settings, read_manifest, read_shard, shard_name, sources_of
from .cache_writer import require_same
from .tar_shards import ReadShards

PARTS = "parts"

T = TypeVar("T")


class Share(NamedTuple):
    """What one of several processes has to do."""

    number: int
    of_all: int

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this process."""
        return items[self.number::self.of_all]

    def folder(self, cache: Path) -> Path:
        """Where this process writes."""
        return cache if self.of_all == 1 else cache / PARTS / f"{self.number:04}"


WHOLE = Share(0, 1)


def known_besides(cache: Path, settings: Settings, share: Share) -> dict[str, str]:
    """The digest of the sources of each concept in a cache of which this process writes a part.

    Raises:
        CacheError: the cache is damaged, or has other settings.
    """
    if share.of_all == 1 or not (cache / MANIFEST).exists():
        return {}
    _, manifest = read_manifest(cache)
    # At once, and not when hours of encoding are put together.
    require_same(cache, manifest.settings, settings)
    return {
        record["name"]: sources_of(record).digest for entry in manifest.shards
        for record in read_shard(cache, entry, manifest.settings)[1]
    }


def gather_parts(cache: Path) -> None:
    """Put all parts of a cache together, and remove them; for one process, while no other writes.

    Raises:
        CacheError: a part is damaged, or has other settings than the cache.
        InUseError: another process still writes.
        OSError: the folder cannot be written.
    """
    place = cache / PARTS
    if not place.is_dir():
        return
    with only_process(cache):
        for part in sorted(place.iterdir()):
            with only_process(part):
                take_in(cache, part)
            shutil.rmtree(part)
        place.rmdir()


def take_in(cache: Path, part: Path) -> None:
    """Add the shards of a part to a cache; those that it has already, after a break, are not added twice."""
    if not (part / MANIFEST).exists():
        return  # it was ended before it began
    _, found = read_manifest(part)
    if not found.shards:
        return
    if (cache / MANIFEST).exists():
        _, manifest = read_manifest(cache)
        require_same(cache, manifest.settings, found.settings)
    else:
        link(part / REFERENCE, cache / REFERENCE)
        manifest = Manifest(found.settings, found.reference, ())
    there = {entry.sha256 for entry in manifest.shards}
    for entry in found.shards:
        if entry.sha256 not in there:
            name = shard_name(len(manifest.shards))
            link(part / entry.file, cache / name)
            manifest = replace(manifest, shards=(*manifest.shards, replace(entry, file=name)))
    write_whole(cache / MANIFEST, manifest.to_json())
    read = ReadShards(part).known
    if read:
        ReadShards(cache).merge(read)


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy of it. Raises OSError."""
    target.unlink(missing_ok=True)  # of a break before the manifest named it
    try:
        os.link(source, target)
    except OSError:  # not every file system can do that
        write_whole(target, source.read_bytes())
