"""Datasets in tar archives: what is read, what is left out, and where an interrupted encoding resumes."""

import io
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from pit.files.pictures import open_picture
from pit.piece_it_together.training import tar_shards
from pit.piece_it_together.training.cache import open_cache
from pit.piece_it_together.training.cache_parts import WHOLE, Share, gather_parts
from pit.piece_it_together.training.dataset import Dataset, read_dataset
from pit.piece_it_together.training.encode import encode_dataset
from pit.piece_it_together.training.tar_shards import ReadShards, concepts_in
from pit.piece_it_together.training.tar_shards import tar_shards as shards_in
from tests.piece_it_together.training.test_encode import ENCODER, HALF, LIVELY, make_concepts


def pack(shard: Path, files: Mapping[str, bytes], *more: tarfile.TarInfo) -> Path:
    """An archive of files, and of members without content."""
    shard.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(shard, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return shard


def packed(folder: Path, shard: Path, names: list[str]) -> Path:
    """An archive of concepts of a folder with targets and parts."""
    files = {}
    for name in names:
        files[f"{name}.target.png"] = (folder / "target" / f"{name}.png").read_bytes()
        for part in sorted((folder / "parts" / name).iterdir()):
            files[f"{name}.{part.name}"] = part.read_bytes()
        files[f"{name}.json"] = b"{}"
    return pack(shard, files)


@pytest.fixture
def pictures(tmp_path) -> Path:
    make_concepts(tmp_path / "set", range(6))
    return tmp_path / "set"


@pytest.fixture
def shards(pictures, tmp_path) -> list[Path]:
    return [
        packed(pictures, tmp_path / "tars" / f"{number}.tar", [f"c{each:02d}" for each in range(*span)])
        for number, span in enumerate(((0, 2), (2, 3), (3, 6)))
    ]


def encode(
    cache: Path, shards: list[Path], share: Share = WHOLE, dataset: Dataset | None = None, **options
):
    dataset = dataset or Dataset(cache, "folders", (), (), {})
    options = {"variants": 2, "batch": 5, "augmentation": LIVELY} | options
    return encode_dataset(dataset, cache, ENCODER, shards=shards, share=share, **options)


def read(files: Mapping[str, bytes], tmp_path: Path, *more: tarfile.TarInfo):
    """The concepts of an archive as names of their parts, and why others are left out."""
    skipped = []
    found = list(concepts_in(pack(tmp_path / "a.tar", files, *more), skipped))
    reasons = {each.path.relative_to(tmp_path).as_posix(): each.why for each in skipped}
    return {each.name: [part.name for part in each.parts] for each in found}, reasons


def test_files_with_one_key_are_a_concept_with_its_parts_in_counting_order(tmp_path):
    names = ("7.10.png", "7.9.webp", "7.horns.jpg", "7.target.jpeg", "dogs/8.target.png", "dogs/8.0.png")
    found, reasons = read(dict.fromkeys(names, b"x"), tmp_path)
    assert found == {"a/7": ["9.webp", "10.png", "horns.jpg"], "a/dogs/8": ["0.png"]} and reasons == {}
    groups = [each.group for each in concepts_in(tmp_path / "a.tar", [])]
    assert groups == ["", "dogs"]


def test_what_cannot_be_used_is_left_out_with_its_reason(tmp_path):
    names = ("1.target.png", "1.0.png", "2.0.png", "3.target.png", "4.target.png", "4.0.png", "4.0.jpg",
             "5.png", ".7.png", "6.exe", "6.txt", "1.target.png", "1.0.png")
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    skipped = []
    found = [each.name for each in concepts_in(tmp_path / "twice.tar", skipped)]
    assert found == ["twice/1"]
    assert {(each.path.name, each.why) for each in skipped} == {
        ("2", "a part without its target"), ("3", "a target without parts"),
        ("4", "pictures whose names differ only in their ending"), ("'6.exe'", "not a picture"),
        ("'5.png'", "neither KEY.target.png (a target) nor KEY.0.png (a part)"),
        ("'.7.png'", "neither KEY.target.png (a target) nor KEY.0.png (a part)"),
        ("1", "the same name as another, or files that are not in a row"),
    }


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("member", [
    special("1.1.png", tarfile.SYMTYPE, "/etc/passwd"), special("1.1.png", tarfile.LNKTYPE, "1.0.png"),
    special("1.1.png", tarfile.FIFOTYPE), special("1.1.png", tarfile.CHRTYPE),
    special("../1.1.png", tarfile.REGTYPE), special("/1.1.png", tarfile.REGTYPE),
    special("a/../../1.1.png", tarfile.REGTYPE), special("n" * 600 + ".1.png", tarfile.REGTYPE),
    special("1.\x1b[2J.png", tarfile.REGTYPE), special("1.\udcff.png", tarfile.REGTYPE),
])
def test_links_devices_and_names_that_lead_out_are_left_out_and_nothing_is_unpacked(tmp_path, member):
    found, reasons = read({"1.target.png": b"x", "1.0.png": b"x"}, tmp_path, member)
    assert found == {"a/1": ["0.png"]}
    assert list(reasons.values()) == ["not an ordinary file with a plain name"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_enormous_pictures_and_endless_concepts_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_shards, "MOST_BYTES", 10)
    monkeypatch.setattr(tar_shards, "MOST_PARTS", 2)
    many = {f"2.{number}.png": b"x" for number in range(3)}
    found, reasons = read({"1.target.png": b"x", "1.0.png": b"x", "1.1.png": b"x" * 11,
                           "2.target.png": b"x", **many}, tmp_path)
    assert found == {"a/1": ["0.png"]}
    assert reasons == {"a.tar/'1.1.png'": "more than 10 bytes", "a.tar/2": "more than 2 parts"}


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_archive_is_named_and_what_stands_before_is_used(tmp_path, shards, damage):
    content = shards[2].read_bytes()
    end = content.index(b"c04.target.png")
    shards[2].write_bytes({"cut": content[:end + 700], "text": b"no archive" * 100, "empty": b""}[damage])
    report = encode(tmp_path / "cache", shards[2:] + shards[:1])
    assert report.added == {"cut": 3, "text": 2, "empty": 2}[damage]
    (problem,) = [each for each in report.skipped if each.path == shards[2]]
    assert problem.why.startswith("a tar archive that cannot be read to its end: ")
    assert set(ReadShards(tmp_path / "cache").known) == {"0.tar"}


def test_damage_anywhere_is_no_error(shards):
    content, rng = shards[0].read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[rng.randrange(len(content))] = rng.randrange(256)
        shards[0].write_bytes(damaged)
        for concept in concepts_in(shards[0], []):
            assert len(concept.name) < 600 and concept.parts


def test_a_list_without_its_cache_is_not_believed(tmp_path, shards):
    encode(tmp_path / "cache", shards)
    (tmp_path / "cache" / "manifest.json").unlink()
    assert encode(tmp_path / "cache", shards).added == 6


def test_archives_give_the_tokens_of_the_same_pictures_in_folders(tmp_path, pictures, shards):
    report = encode(tmp_path / "cache", shards)
    assert (report.added, report.kept, report.skipped) == (6, 0, ())
    packed_one = open_cache(tmp_path / "cache", verify=True)
    assert packed_one.names == ["0/c00", "0/c01", "1/c02", "2/c03", "2/c04", "2/c05"]
    encode_dataset(read_dataset(pictures), tmp_path / "plain", ENCODER, variants=2, augmentation=LIVELY)
    folder = open_cache(tmp_path / "plain")
    # The targets only: how parts are augmented depends on the names of their concepts.
    one, other = (cache.rows(cache.target_rows) for cache in (packed_one, folder))
    torch.testing.assert_close(one, other, **HALF)
    assert torch.equal(packed_one.part_offsets, folder.part_offsets)


def test_a_picture_in_an_archive_opens_as_its_file_does(tmp_path, pictures, shards):
    first, *_ = concepts_in(shards[0], [])
    plain = read_dataset(pictures).concepts[0]
    for one, other in zip((first.target, *first.parts), (plain.target, *plain.parts), strict=True):
        assert open_picture(one).tobytes() == open_picture(other).tobytes()


def test_archives_that_are_read_are_not_opened_again(tmp_path, shards, monkeypatch):
    encode(tmp_path / "cache", shards)
    before = (tmp_path / "cache" / "manifest.json").read_bytes()
    monkeypatch.setattr(tarfile, "open", None)
    report = encode(tmp_path / "cache", shards)
    assert (report.added, report.kept) == (0, 6)
    assert (tmp_path / "cache" / "manifest.json").read_bytes() == before


def test_a_copied_archive_is_read_again_and_its_concepts_are_kept(tmp_path, pictures, shards):
    encode(tmp_path / "cache", shards)
    content = shards[0].read_bytes()
    shards[0].write_bytes(content)
    packed(pictures, shards[1], ["c02", "c05"])
    report = encode(tmp_path / "cache", shards)
    assert (report.added, report.kept) == (1, 6)


def test_an_interrupted_encoding_resumes_with_the_archive_that_it_was_in(tmp_path, shards, monkeypatch):
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 14:  # in the second archive: a target and two parts in two versions are five pictures
            raise Stop

    with pytest.raises(Stop):
        encode(tmp_path / "cache", shards, on_progress=stop)
    assert set(ReadShards(tmp_path / "cache").known) == {"0.tar"}
    opened = []
    open_tar = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path, mode: opened.append(path.name) or open_tar(path, mode))
    report = encode(tmp_path / "cache", shards)
    assert opened == ["1.tar", "2.tar"] and report.added + report.kept == 6
    assert len(open_cache(tmp_path / "cache", verify=True)) == 6


def test_a_damaged_list_of_read_archives_only_costs_time(tmp_path, shards):
    encode(tmp_path / "cache", shards)
    for content in (b"{", b"[]", b"\xff"):
        (tmp_path / "cache" / "read_shards.json").write_bytes(content)
        assert encode(tmp_path / "cache", shards).kept == 6


def test_references_are_refused_for_archives(tmp_path, shards):
    with pytest.raises(ValueError, match="Expected no references for concepts in tar archives, got 1"):
        encode(tmp_path / "cache", shards, references=1)


def test_archives_are_found_beside_other_files_and_one_by_itself(tmp_path, shards):
    (shards[0].parent / ".hidden.tar").touch()
    (shards[0].parent / "notes.txt").touch()
    (shards[0].parent / "folder.tar").mkdir()
    assert shards_in(shards[0].parent) == shards and shards_in(shards[1]) == [shards[1]]
    assert shards_in(tmp_path / "none") == []


def test_several_processes_fill_one_cache_as_one_does(tmp_path, pictures, shards):
    dataset = read_dataset(pictures)
    once = encode(tmp_path / "once", shards, dataset=dataset)
    reports = [encode(tmp_path / "cache", shards, Share(number, 2), dataset) for number in range(2)]
    assert sum(report.added for report in reports) == once.added == 12
    assert all(report.added for report in reports) and not (tmp_path / "cache" / "manifest.json").exists()
    gather_parts(tmp_path / "cache")
    assert not (tmp_path / "cache" / "parts").exists()
    one, two = open_cache(tmp_path / "once"), open_cache(tmp_path / "cache", verify=True)
    assert one.names == two.names
    for rows in ("target_rows", "part_rows"):
        first, second = (cache.rows(getattr(cache, rows)) for cache in (one, two))
        torch.testing.assert_close(first, second, **HALF)
    torch.testing.assert_close(one.empty, two.empty)
    assert set(ReadShards(tmp_path / "cache").known) == {"0.tar", "1.tar", "2.tar"}
    again = [encode(tmp_path / "cache", shards, Share(number, 3), dataset) for number in range(3)]
    assert [report.added for report in again] == [0, 0, 0] and sum(report.kept for report in again) == 12
