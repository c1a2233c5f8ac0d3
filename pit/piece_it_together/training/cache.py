"""The token cache: every picture of a dataset as IP+ tokens, encoded once, and mapped into memory from disk.

A folder with
    manifest.json           settings, fingerprints, and size and SHA-256 of every other file; written last
    reference.safetensors   `empty` and `uncond`, `[1, 16, D]` float32
    tokens-00000.safetensors, ...   `tokens` `[rows, 16, D]` float16, and in the header, under `concepts`,
                            a JSON list of records that say which concept is in which rows of the shard
A shard never changes once a manifest names it; a shard that no manifest names is left over from a crash and
is ignored. A later record of a concept replaces an earlier one.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files.plain_json import parse_json
from ...files.records import Fingerprint, fingerprint_from_json
from ...files.weights import WeightFileError, read_state
from ...files.whole import read_small, sha256_of
from ...ip_adapter.resampler import TOKENS_PER_PICTURE
from ...messages import ShortError, quoted

FORMAT = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.safetensors"
AGAIN = "Delete the folder and encode the dataset again."


class CacheError(ShortError):
    """A token cache that cannot be used: names the file or folder, what was expected and got, what to do."""


@dataclass(frozen=True)
class Sources:
    """The pictures of one concept, each by the SHA-256 of its file (or anything else that changes with it).

    Attributes:
        name: of the concept, unique in the cache.
        group: shared by concepts of one kind.
        target: SHA-256 of the target picture.
        parts: name and SHA-256 of every part, in order.
        grids: SHA-256 of every reference grid.
    """

    name: str
    group: str = ""
    target: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    grids: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Changes with any picture, any part's name, and the order of the parts."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True)
class CachedFile:
    """A file of the cache as the manifest describes it."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Settings:
    """What all tokens of a cache have in common.

    Attributes:
        width: D of the tokens.
        variants: augmented versions of each part.
        augmentation: how these were drawn, in plain JSON values.
        encoder, adapter: the models that made the tokens.
    """

    width: int
    variants: int
    augmentation: dict[str, Any]
    encoder: Fingerprint
    adapter: Fingerprint


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    settings: Settings
    reference: CachedFile
    shards: tuple[CachedFile, ...]

    def to_json(self) -> bytes:
        content = {"format": FORMAT, "tokens": TOKENS_PER_PICTURE} | asdict(self.settings)
        content |= {"reference": asdict(self.reference), "shards": [asdict(shard) for shard in self.shards]}
        return json.dumps(content, indent=1).encode()


# eq=False: comparing tensors gives a tensor, of which no one truth can be told.
@dataclass(frozen=True, eq=False)
class TokenCache:
    """An open cache, read-only. Its N concepts, with M parts in all, are in the order of their names.

    Row numbers count through all shards; `rows` takes them.

    Attributes:
        empty, uncond: tokens of the white and of the all-zero picture, `[1, 16, D]` float32.
        fingerprint: SHA-256 of the manifest: equal means the same tokens.
        names, groups: of each concept.
        target_rows: `[N]` int64.
        part_offsets: `[N + 1]` int64; concept i has the parts `part_offsets[i]` to `part_offsets[i + 1]`.
        part_rows: `[M]` int64, the first of the `variants` consecutive rows of each part.
        reference_rows: `[N, R]` int64; R may be 0.
        shards: the mapped tokens, each `[rows, 16, D]` float16.
        shard_starts: `[S]` int64, the first row of each shard.
    """

    folder: Path
    settings: Settings
    empty: Tensor
    uncond: Tensor
    fingerprint: str
    names: list[str]
    groups: list[str]
    target_rows: Tensor
    part_offsets: Tensor
    part_rows: Tensor
    reference_rows: Tensor
    shards: tuple[Tensor, ...]
    shard_starts: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        return self.settings.width

    @property
    def variants(self) -> int:
        return self.settings.variants

    @property
    def encoder(self) -> Fingerprint:
        return self.settings.encoder

    @property
    def adapter(self) -> Fingerprint:
        return self.settings.adapter

    def rows(self, index: Tensor) -> Tensor:
        """Tokens of the rows `index` `[n]`, in that order: `[n, 16, D]` float16, a copy.

        Raises:
            IndexError: a row is negative or beyond the last.
        """
        # Python would count a negative row from the end of a shard and return other tokens without a word.
        if len(index) and index.min() < 0:
            raise IndexError(f"Expected rows of the token cache from 0 on, got {int(index.min())}.")
        tokens = torch.empty(len(index), TOKENS_PER_PICTURE, self.width, dtype=torch.float16)
        # Shard by shard: one indexing each instead of one for every row.
        shard_of_row = torch.bucketize(index, self.shard_starts, right=True) - 1
        for number in shard_of_row.unique().tolist():
            here = (shard_of_row == number).nonzero().squeeze(1)
            tokens[here] = self.shards[number][index[here] - self.shard_starts[number]]
        return tokens


def open_cache(folder: Path, verify: bool = False) -> TokenCache:
    """Open a cache without reading its tokens, which are mapped into memory.

    Args:
        verify: also compare the SHA-256 of every file, which reads all of them.

    Raises:
        CacheError: not a cache, an empty or damaged one, or one of a later version.
    """
    content, manifest = read_manifest(folder)
    if not manifest.shards:
        raise CacheError(
            f"Expected concepts in the token cache {folder}, got a cache without concepts. Encode a dataset "
            "into it first."
        )
    reference, _ = _read_file(folder, manifest.reference, verify)
    shards, records = [], []
    for entry in manifest.shards:
        tokens, concepts = read_shard(folder, entry, manifest.settings, verify)
        shards.append(tokens)
        records.append(concepts)
    starts = torch.tensor([0] + [entry.rows for entry in manifest.shards[:-1]]).cumsum(0)
    # The manifest holds the hash of every file, so its own hash identifies all tokens.
    return TokenCache(
        folder=folder, settings=manifest.settings, fingerprint=hashlib.sha256(content).hexdigest(),
        **_references(folder / REFERENCE, reference, manifest.settings.width),
        **_tables(folder, starts.tolist(), records), shards=tuple(shards), shard_starts=starts,
    )


def read_manifest(folder: Path) -> tuple[bytes, Manifest]:
    """The bytes and the content of a cache's manifest.

    Raises:
        CacheError: missing, damaged, or of a later version.
    """
    path = folder / MANIFEST
    try:
        content = read_small(path)
    except OSError as error:
        raise CacheError(
            f"Expected a token cache in {folder}, got a folder whose {MANIFEST} cannot be read "
            f"({error.strerror}). Name the folder of an encoded dataset."
        ) from error
    try:
        data = parse_json(content.decode("utf-8"))
        # Before anything else: a later version may have other fields, and is not damaged.
        version = data["format"]
        manifest = _manifest(data) if version == FORMAT else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CacheError(f"{path}: expected a manifest, got a damaged one ({reason}). {AGAIN}") from error
    if manifest is None:
        raise CacheError(
            f"{path}: expected format {FORMAT}, got {quoted(version)}. Update the pack, or encode the "
            "dataset again."
        )
    return content, manifest


def read_shard(
    folder: Path, entry: CachedFile, settings: Settings, verify: bool = False
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The mapped tokens `[rows, 16, D]` of a shard, and the records of its concepts.

    Raises:
        CacheError: missing, truncated, or not what the manifest says.
    """
    state, metadata = _read_file(folder, entry, verify)
    tokens, expected = state.get("tokens"), (entry.rows, TOKENS_PER_PICTURE, settings.width)
    if tokens is None or tokens.shape != expected or tokens.dtype != torch.float16:
        found = "none" if tokens is None else f"{list(tokens.shape)} {tokens.dtype}"
        raise CacheError(
            f"{folder / entry.file}: expected tokens {list(expected)} torch.float16, got {found}. {AGAIN}"
        )
    try:
        records = parse_json(metadata["concepts"])
        for record in records:
            _check_record(record, entry.rows, settings.variants)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CacheError(
            f"{folder / entry.file}: expected records of concepts, got damaged records ({error}). {AGAIN}"
        ) from error
    return tokens, records


def shard_name(number: int) -> str:
    return f"tokens-{number:05d}.safetensors"


def _manifest(data: dict[str, Any]) -> Manifest:
    settings = Settings(
        width=_whole(data["width"]), variants=_whole(data["variants"]),
        augmentation=dict(data["augmentation"]),
        **{model: fingerprint_from_json(data[model]) for model in ("encoder", "adapter")},
    )
    shards = [_cached_file(entry, shard_name(number)) for number, entry in enumerate(data["shards"])]
    return Manifest(settings, _cached_file(data["reference"], REFERENCE), tuple(shards))


def _cached_file(entry: dict[str, Any], name: str) -> CachedFile:
    # The very name, so that no manifest can point out of its folder.
    if entry["file"] != name:
        raise ValueError(f"expected the file {name}, got {quoted(entry['file'])}")
    return CachedFile(name, _whole(entry["rows"]), _whole(entry["bytes"]), str(entry["sha256"]))


def _whole(number: object) -> int:
    if type(number) is not int or number < 1:
        raise ValueError(f"expected a whole number from 1, got {quoted(number)}")
    return number


def _read_file(folder: Path, entry: CachedFile, verify: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = folder / entry.file
    # Costs nothing, so it is done each time: a copy that broke off is found before hours of training.
    size = path.stat().st_size if path.is_file() else None
    if size != entry.bytes:
        found = "no file" if size is None else f"{size} bytes"
        raise CacheError(f"{path}: expected {entry.bytes} bytes, got {found}. {AGAIN}")
    if verify and sha256_of(path) != entry.sha256:
        raise CacheError(f"{path}: expected the SHA-256 in its manifest, got another: it is damaged. {AGAIN}")
    try:
        return read_state(path)
    except WeightFileError as error:
        raise CacheError(f"{path}: expected a readable file, got an error: {error} {AGAIN}") from error


def _check_record(record: dict[str, Any], rows: int, variants: int) -> None:
    # Here, once: a row that is not in its shard would end a training in its middle, or give other tokens.
    sources_of(record)
    texts = [record["name"], record["group"], record["picture"]]
    numbers = [record["target"], *record["references"], *(part["row"] for part in record["parts"])]
    if not all(isinstance(each, str | None) for each in texts) or not isinstance(record["name"], str):
        raise ValueError(f"expected names in a record, got {quoted(texts)}")
    if not all(type(each) is int for each in numbers):
        raise ValueError(f"expected whole numbers of rows, got {quoted(numbers)}")
    firsts = [record["target"], *record["references"]]
    inside = all(0 <= row < rows for row in firsts)
    if not inside or not all(0 <= part["row"] <= rows - variants for part in record["parts"]):
        name = quoted(record["name"])
        raise ValueError(f"expected rows below {rows} for {name}, got rows beyond the shard")


def sources_of(record: dict[str, Any]) -> Sources:
    """The pictures that a record was encoded from."""
    parts = tuple((part["name"], part["picture"]) for part in record["parts"])
    return Sources(record["name"], record["group"], record["picture"], parts, tuple(record["grids"]))


def _references(path: Path, state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Copies, so that the file is not kept open."""
    expected = (1, TOKENS_PER_PICTURE, width)
    for name in ("empty", "uncond"):
        if name not in state or state[name].shape != expected:
            found = list(state[name].shape) if name in state else "none"
            raise CacheError(f"{path}: expected {name} tokens {list(expected)}, got {found}. {AGAIN}")
    return {name: state[name].float().clone() for name in ("empty", "uncond")}


def _tables(folder: Path, starts: list[int], records: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The fields of `TokenCache` that say where everything is."""
    # Sorted by name: the order of concepts does not tell in how many goes the cache was filled.
    latest = {
        record["name"]: (start, record)
        for start, concepts in zip(starts, records, strict=True) for record in concepts
    }
    concepts = [latest[name] for name in sorted(latest)]
    if len({len(record["references"]) for _, record in concepts}) != 1:
        raise CacheError(
            f"Expected the same number of references for all concepts in {folder}, got several. {AGAIN}"
        )
    part_counts = torch.tensor([0] + [len(record["parts"]) for _, record in concepts])
    part_rows = [start + part["row"] for start, record in concepts for part in record["parts"]]
    references = [[start + row for row in record["references"]] for start, record in concepts]
    return {
        "names": [record["name"] for _, record in concepts],
        "groups": [record["group"] for _, record in concepts],
        "target_rows": torch.tensor([start + record["target"] for start, record in concepts]),
        "part_offsets": part_counts.cumsum(0),
        "part_rows": torch.tensor(part_rows, dtype=torch.int64),
        "reference_rows": torch.tensor(references, dtype=torch.int64),
    }
