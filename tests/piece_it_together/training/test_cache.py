"""The token cache: what is written is read, without reading all of it, and damage is named."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pit.files.records import Fingerprint
from pit.piece_it_together.training.cache import (
    MANIFEST,
    REFERENCE,
    CacheError,
    Sources,
    open_cache,
    shard_name,
)
from pit.piece_it_together.training.cache_writer import CacheWriter

WIDTH, VARIANTS = 8, 2
ENCODER = Fingerprint("vision.safetensors", (3.0, -4.0, 12.0))
ADAPTER = Fingerprint("adapter.bin", (1.0, 2.0, -2.0))
ENDS = torch.stack([torch.full((16, WIDTH), 0.1), torch.full((16, WIDTH), -0.1)])
AUGMENTATION = {"rotation_degrees": 30.0, "seed": 0}


def writer(folder: Path, **changes) -> CacheWriter:
    settings = {
        "width": WIDTH, "variants": VARIANTS, "augmentation": AUGMENTATION, "encoder": ENCODER,
        "adapter": ADAPTER, "empty": ENDS[:1], "uncond": ENDS[1:],
    }
    return CacheWriter(folder, **settings | changes)


def sources(number: int, parts: int = 2, references: int = 0, version: str = "") -> Sources:
    return Sources(
        f"group/concept {number:02d}", "group", f"target {number}{version}",
        tuple((f"{part}.png", f"part {number}/{part}") for part in range(parts)),
        tuple(f"grid {number}/{grid}" for grid in range(references)),
    )


def tokens(number: int, kind: int, count: int) -> Tensor:
    """`[count, 16, 8]`, different for each concept and kind, exact in float16."""
    generator = torch.Generator().manual_seed(1000 * number + kind)
    return torch.randn(count, 16, WIDTH, generator=generator).half().float()


def add(cache: CacheWriter, number: int, parts: int = 2, references: int = 0, version: str = "") -> None:
    cache.add(
        sources(number, parts, references, version), tokens(number, 0, 1)[0],
        [tokens(number, 1 + part, VARIANTS) for part in range(parts)], tokens(number, 99, references),
    )


def write(folder: Path, numbers, **options) -> None:
    with writer(folder, shard_rows=options.pop("shard_rows", 11)) as cache:
        for number in numbers:
            add(cache, number, **options)


def assert_holds(folder: Path, numbers, references: int = 0) -> None:
    """The cache holds these concepts, each token at its place."""
    cache = open_cache(folder, verify=True)
    assert cache.names == [sources(number).name for number in numbers] and len(cache) == len(cache.names)
    assert cache.reference_rows.shape == (len(cache), references)
    assert torch.equal(cache.rows(cache.target_rows), torch.cat([tokens(n, 0, 1) for n in numbers]).half())
    for i, number in enumerate(numbers):
        rows = cache.part_rows[cache.part_offsets[i]:cache.part_offsets[i + 1]]
        for part, row in enumerate(rows):
            variants = cache.rows(row + torch.arange(VARIANTS))
            assert torch.equal(variants, tokens(number, 1 + part, VARIANTS).half())
        assert torch.equal(cache.rows(cache.reference_rows[i]), tokens(number, 99, references).half())


def refused(*messages: str):
    """A CacheError with all of these, in this order."""
    return pytest.raises(CacheError, match=".*".join(messages))


def test_every_token_is_found_at_its_place_over_many_shards(tmp_path):
    write(tmp_path / "new" / "cache", range(9), references=2, shard_rows=11)
    shards = sorted(path.name for path in (tmp_path / "new" / "cache").glob("tokens-*"))
    assert shards == [shard_name(number) for number in range(5)]
    assert_holds(tmp_path / "new" / "cache", range(9), references=2)


def test_concepts_may_have_different_numbers_of_parts_and_come_in_the_order_of_their_names(tmp_path):
    with writer(tmp_path) as cache:
        for number in (3, 1, 2):
            add(cache, number, parts=number)
    cache = open_cache(tmp_path)
    assert cache.part_offsets.tolist() == [0, 1, 3, 6]
    assert cache.groups == ["group"] * 3
    assert_holds(tmp_path, (1, 2, 3))


def test_rows_come_in_the_order_asked_for(tmp_path):
    write(tmp_path, range(4))
    cache = open_cache(tmp_path)
    index = cache.target_rows[[3, 0, 3, 1]]
    assert torch.equal(cache.rows(index), torch.cat([tokens(n, 0, 1) for n in (3, 0, 3, 1)]).half())
    assert cache.rows(index[:0]).shape == (0, 16, WIDTH)


@pytest.mark.parametrize("row", [-1, 20])
def test_a_row_that_does_not_exist_is_an_error(tmp_path, row):
    write(tmp_path, range(4))
    with pytest.raises(IndexError):
        open_cache(tmp_path).rows(torch.tensor([0, row]))


def test_references_and_settings_are_kept(tmp_path):
    write(tmp_path, range(2))
    cache = open_cache(tmp_path)
    assert torch.equal(cache.empty, ENDS[:1]) and torch.equal(cache.uncond, ENDS[1:])
    assert (cache.width, cache.variants, cache.encoder, cache.adapter) == (WIDTH, VARIANTS, ENCODER, ADAPTER)
    assert cache.settings.augmentation == AUGMENTATION


def test_the_fingerprint_of_a_cache_changes_with_its_content(tmp_path):
    write(tmp_path, range(2))
    before = open_cache(tmp_path).fingerprint
    write(tmp_path, ())
    assert open_cache(tmp_path).fingerprint == before
    write(tmp_path, (2,))
    assert open_cache(tmp_path).fingerprint != before


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_opening_reads_no_tokens_and_keeps_no_file_open(tmp_path):
    with writer(tmp_path, width=512, empty=torch.zeros(1, 16, 512), uncond=torch.zeros(1, 16, 512)) as cache:
        for number in range(200):
            cache.add(sources(number, parts=0), torch.full((16, 512), float(number)), [])

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    def resident() -> int:
        return 4096 * sum(map(int, Path("/proc/self/statm").read_text().split()[1:2]))

    files, read, memory = len(os.listdir("/proc/self/fd")), bytes_read(), resident()
    cache = open_cache(tmp_path)
    assert cache.shards[0].nbytes == 200 * 16 * 512 * 2
    assert bytes_read() - read < 300_000 and resident() - memory < 1_500_000
    assert len(os.listdir("/proc/self/fd")) == files
    assert cache.rows(torch.tensor([0, 199]))[:, 0, 0].tolist() == [0, 199]


def test_adding_later_gives_what_one_go_gives(tmp_path):
    write(tmp_path / "parts", (4, 0, 2))
    write(tmp_path / "parts", (1, 3))
    write(tmp_path / "once", range(5))
    for folder in ("parts", "once"):
        assert_holds(tmp_path / folder, range(5))


def test_an_old_shard_is_never_touched_by_adding(tmp_path):
    write(tmp_path, range(3))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    open_while_adding = open_cache(tmp_path)
    write(tmp_path, (3, 4))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(open_while_adding) == 3 and len(open_cache(tmp_path)) == 5


def test_known_tells_what_is_cached_and_changes_with_every_picture(tmp_path):
    write(tmp_path, range(2))
    assert writer(tmp_path).known == {sources(n).name: sources(n).digest for n in range(2)}
    one = sources(0, references=1)
    others = [
        replace(one, target="another"), replace(one, grids=("another",)),
        replace(one, parts=one.parts[::-1]), replace(one, parts=one.parts[:1]),
        replace(one, parts=(("0.png", "another"), one.parts[1])),
    ]
    assert len({each.digest for each in [one, *others]}) == 6


def test_a_later_record_replaces_the_earlier(tmp_path):
    write(tmp_path, range(3))
    with writer(tmp_path) as cache:
        cache.add(sources(1, parts=1, version=" repainted"), tokens(7, 0, 1)[0], [tokens(7, 1, VARIANTS)])
    cache = open_cache(tmp_path)
    assert cache.names == [sources(number).name for number in range(3)]
    assert torch.equal(cache.rows(cache.target_rows[1:2]), tokens(7, 0, 1).half())
    assert cache.part_offsets.tolist() == [0, 2, 3, 5]
    assert writer(tmp_path).known[sources(1).name] == sources(1, parts=1, version=" repainted").digest


def test_fingerprints_match_the_same_weights_only():
    numbers = tuple(torch.randn(32, generator=torch.Generator().manual_seed(0)).tolist())
    half = Fingerprint("other file", tuple(torch.tensor(numbers).half().tolist()))
    assert Fingerprint("file", numbers).matches(half)
    assert not Fingerprint("file", numbers).matches(Fingerprint("file", numbers[::-1]))
    assert not Fingerprint("file", numbers).matches(Fingerprint("file", numbers[:-1]))
    assert not Fingerprint("file", numbers).matches(Fingerprint("file", (float("nan"),) * 32))


@pytest.mark.parametrize("damage, messages", [
    (lambda f: (f / shard_name(1)).write_bytes((f / shard_name(1)).read_bytes()[:-5]),
     (shard_name(1), "expected .* bytes, got .* bytes")),
    (lambda f: (f / shard_name(0)).unlink(), (shard_name(0), "got no file")),
    (lambda f: (f / REFERENCE).unlink(), (REFERENCE, "got no file")),
    (lambda f: (f / MANIFEST).write_text("{"), (MANIFEST, "got a damaged one", "encode the dataset again")),
    (lambda f: (f / MANIFEST).write_bytes(b"\xff\x00"), (MANIFEST, "got a damaged one")),
    (lambda f: (f / MANIFEST).write_text("[]"), (MANIFEST, "got a damaged one")),
    (lambda f: (f / MANIFEST).unlink(), ("Expected a token cache", MANIFEST)),
    (lambda f: edit(f, format=2), ("expected format 1, got 2", "Update")),
    (lambda f: edit(f, width=9), (REFERENCE + "|" + shard_name(0), "expected", "9")),
    (lambda f: edit(f, width="8"), ("got a damaged one", "whole number")),
    (lambda f: edit(f, variants=0), ("got a damaged one", "whole number")),
    (lambda f: edit(f, variants=9), ("damaged records", "beyond")),
    (lambda f: edit(f, encoder=None), ("got a damaged one",)),
    (lambda f: edit(f, shards=[]), ("without concepts",)),
    (lambda f: edit_shard(f, file="../tokens-00000.safetensors"), ("got a damaged one", "expected the file")),
    (lambda f: edit_shard(f, rows=-1), ("got a damaged one", "whole number")),
    (lambda f: edit_shard(f, rows=3), (shard_name(0), r"expected tokens \[3, 16, 8\]")),
])
def test_a_damaged_cache_is_refused_by_name(tmp_path, damage, messages):
    write(tmp_path, range(4))
    damage(tmp_path)
    with refused(*messages):
        open_cache(tmp_path)


def edit(folder: Path, **changes) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def edit_shard(folder: Path, **changes) -> None:
    shards = json.loads((folder / MANIFEST).read_text())["shards"]
    edit(folder, shards=[shards[0] | changes, *shards[1:]])


@pytest.mark.parametrize("place", [30, -1])
def test_a_flipped_bit_is_found_when_verifying(tmp_path, place):
    write(tmp_path, range(4))
    content = bytearray((tmp_path / shard_name(0)).read_bytes())
    content[place] ^= 1
    (tmp_path / shard_name(0)).write_bytes(content)
    with refused(shard_name(0), "SHA-256"):
        open_cache(tmp_path, verify=True)
