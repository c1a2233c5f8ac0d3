"""Writing a token cache that can be interrupted anywhere and added to later; `cache` describes the layout.

Data first, manifest last: a shard is on the disk, flushed, before a manifest names it, and the manifest is
replaced as a whole. Whenever the process or the machine stops, the old manifest or the new one is there, and
all that it names is complete.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ...files.lock import FolderLock
from ...files.records import Fingerprint
from ...files.weights import WeightFileError, write_state
from ...files.whole import clean_leftovers, sha256_of, write_whole
from .cache import (
    MANIFEST,
    REFERENCE,
    TOKENS_PER_PICTURE,
    CachedFile,
    CacheError,
    Manifest,
    Settings,
    Sources,
    read_manifest,
    read_shard,
    shard_name,
    sources_of,
)


class CacheWriter:
    """Creates a cache or adds to one; a context manager that saves everything at its end, also after errors.

    Each full shard is written and named in the manifest at once, so that a killed process loses at most one.

    Attributes:
        known: the digest of the sources of each concept that is already cached, by name.
    """

    def __init__(
        self, folder: Path, *, width: int, variants: int, augmentation: dict[str, Any], encoder: Fingerprint,
        adapter: Fingerprint, empty: Tensor, uncond: Tensor, shard_rows: int = 4096,
    ) -> None:
        """
        Args:
            width: D of the tokens.
            variants: versions of each part.
            augmentation: how these are drawn, including the seed, as JSON values.
            empty, uncond: `[1, 16, D]`; kept in fp32. An existing cache keeps its own.
            shard_rows: a shard is written once it has this many; 4096 are 256 MB at the published width.

        Raises:
            CacheError: the folder cannot be written, or holds a damaged cache or one of other settings.
            InUseError: another process writes this cache.
        """
        self.folder, self.shard_rows = folder, shard_rows
        self._lock = FolderLock(folder)
        self.known: dict[str, str] = {}
        self._pending: list[Tensor] = []
        self._records: list[dict[str, Any]] = []
        self._row_count = 0
        self._references: int | None = None
        # Through JSON and back, which turns tuples into lists: else they would differ from what is read.
        settings = Settings(width, variants, json.loads(json.dumps(augmentation)), encoder, adapter)
        try:
            self._manifest = self._begin(settings, empty, uncond)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After a CacheError the same write would fail again: a disk that was full is still full.
            if kind is None or not issubclass(kind, CacheError):
                self.flush()
        finally:
            self._lock.release()

    def add(
        self, sources: Sources, target: Tensor, parts: Sequence[Tensor], references: Tensor | None = None
    ) -> None:
        """Add a concept, or replace the one of the same name.

        Args:
            target: `[16, D]`.
            parts: for each of `sources.parts`, the tokens of its variants, `[variants, 16, D]`.
            references: one for each of `sources.grids`, `[R, 16, D]`; R is the same for all concepts.

        Raises:
            CacheError: tensors of another shape or with NaN or infinite values, or a failure to write.
        """
        references = target.new_empty(0, TOKENS_PER_PICTURE, self.width) if references is None else references
        self._check_shapes(sources, target, parts, references)
        tokens = torch.cat([target[None], *parts, references]).to("cpu", torch.float16)
        # After the conversion, which turns what float16 cannot hold into infinity.
        if not tokens.isfinite().all():
            raise CacheError(
                f"Expected finite tokens for {sources.name}, got NaN or infinite values. Encode with "
                "float32, and check the encoder's file."
            )
        self._records.append(self._record(sources))
        self._pending.append(tokens)
        self._row_count += len(tokens)
        self._references = len(references)
        self.known[sources.name] = sources.digest
        if self._row_count >= self.shard_rows:
            self.flush()

    @property
    def settings(self) -> Settings:
        return self._manifest.settings

    @property
    def width(self) -> int:
        return self.settings.width

    @property
    def variants(self) -> int:
        return self.settings.variants

    def flush(self) -> None:
        """Write what was added since the last shard as another shard, and name it in the manifest.

        Raises:
            CacheError: the disk is full or cannot be written, or another process has written meanwhile.
        """
        if not self._pending:
            return
        # Another writer would have taken the same number for its shard, and one would overwrite the other's.
        manifest = self.folder / MANIFEST
        if not manifest.is_file() or manifest.read_bytes() != self._manifest.to_json():
            raise CacheError(
                f"{manifest}: expected what this process wrote, got what another process has changed. Let "
                "one process at a time write a cache, and run this one again."
            )
        name = shard_name(len(self._manifest.shards))
        # The records are in the shard's own header, so that manifest and shard cannot tell different things.
        state, metadata = {"tokens": torch.cat(self._pending)}, {"concepts": json.dumps(self._records)}
        shard = self._write_tensors(name, state, metadata)
        self._manifest = self._written(replace(self._manifest, shards=(*self._manifest.shards, shard)))
        self._pending, self._records, self._row_count = [], [], 0

    def _begin(self, settings: Settings, empty: Tensor, uncond: Tensor) -> Manifest:
        """Take up the cache in the folder, or begin one."""
        if (self.folder / MANIFEST).exists():
            _, manifest = read_manifest(self.folder)
            require_same(self.folder, manifest.settings, settings)
            self._take_up(manifest)
        else:
            reference = self._write_reference(empty, uncond, settings.width)
            manifest = Manifest(settings, reference, ())
        clean_leftovers(self.folder)
        # Even if nothing has changed: a folder that cannot be written is noticed before hours of encoding.
        return self._written(manifest)

    def _take_up(self, manifest: Manifest) -> None:
        for entry in manifest.shards:
            for record in read_shard(self.folder, entry, manifest.settings)[1]:
                self.known[record["name"]] = sources_of(record).digest
                self._references = len(record["references"])

    def _check_shapes(
        self, sources: Sources, target: Tensor, parts: Sequence[Tensor], references: Tensor
    ) -> None:
        count = len(sources.grids) if self._references is None else self._references
        token = (TOKENS_PER_PICTURE, self.width)
        expected = [token, *[(self.variants, *token)] * len(sources.parts), (count, *token)]
        found = [tuple(tensor.shape) for tensor in (target, *parts, references)]
        if found != expected or len(sources.grids) != count:
            raise CacheError(
                f"{sources.name}: expected a target, {len(sources.parts)} parts and {count} references of "
                f"the shapes {expected}, got {found}. Encode with the settings of the cache."
            )

    def _record(self, sources: Sources) -> dict[str, Any]:
        target = self._row_count
        first_reference = target + 1 + len(sources.parts) * self.variants
        return {
            "name": sources.name, "group": sources.group, "picture": sources.target, "target": target,
            "parts": [
                {"name": name, "row": target + 1 + number * self.variants, "picture": picture}
                for number, (name, picture) in enumerate(sources.parts)
            ],
            "references": list(range(first_reference, first_reference + len(sources.grids))),
            "grids": list(sources.grids),
        }

    def _write_reference(self, empty: Tensor, uncond: Tensor, width: int) -> CachedFile:
        expected = (1, TOKENS_PER_PICTURE, width)
        if empty.shape != expected or uncond.shape != expected:
            raise CacheError(
                f"Expected empty and uncond tokens of the shape {list(expected)}, got {list(empty.shape)} "
                f"and {list(uncond.shape)}. Take all tokens from one encoder."
            )
        state = {"empty": empty.float().cpu(), "uncond": uncond.float().cpu()}
        return self._write_tensors(REFERENCE, state, {})

    def _write_tensors(self, name: str, state: dict[str, Tensor], metadata: dict[str, str]) -> CachedFile:
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The same bytes for the same tokens, whose hash a training keeps: one that is resumed accepts a
            # cache that had to be encoded again.
            write_state(path, state, metadata, marked=not metadata)
            rows = len(next(iter(state.values())))
            return CachedFile(name, rows, path.stat().st_size, sha256_of(path))
        except (OSError, WeightFileError) as error:
            raise _not_written(path, error) from error

    def _written(self, manifest: Manifest) -> Manifest:
        path = self.folder / MANIFEST
        try:
            write_whole(path, manifest.to_json())
        except OSError as error:
            raise _not_written(path, error) from error
        return manifest


def _not_written(path: Path, error: Exception) -> CacheError:
    reason = getattr(error, "strerror", None) or error
    return CacheError(
        f"{path} could not be written ({reason}). What the cache held before is intact: free some space or "
        "make the folder writable, then run the same again, which resumes from there."
    )


def require_same(folder: Path, cached: Settings, wanted: Settings) -> None:
    """Raise CacheError unless tokens of these settings can be added to the cache in a folder."""
    for model in ("encoder", "adapter"):
        before, now = getattr(cached, model), getattr(wanted, model)
        if not before.matches(now):
            raise CacheError(
                f"{folder} was encoded by another {model}: expected the weights of {before.name!r}, got "
                f"those of {now.name!r}, which give other tokens. Use the same {model}, or another folder."
            )
    pairs = {"width": (cached.width, wanted.width), "variants": (cached.variants, wanted.variants)}
    for name in sorted(cached.augmentation.keys() | wanted.augmentation.keys()):
        pairs[name] = (cached.augmentation.get(name), wanted.augmentation.get(name))
    changed = [f"{name} {before} (now {now})" for name, (before, now) in pairs.items() if before != now]
    if changed:
        raise CacheError(
            f"Expected the settings with which {folder} was encoded, got changed ones: {', '.join(changed)}. "
            "Restore them to add to it, or use another folder for other settings."
        )
