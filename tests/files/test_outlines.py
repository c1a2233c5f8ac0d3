"""Tensors are taken out of pickles of other objects, and nothing of these runs."""

import collections
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from pit.files.archives import UnsoundPickle
from pit.files.outlines import Foreign, TensorAt, outline_of, tensor_at
from tests.files.test_pickles import HOSTILE, START, call, storage, tensor, zipped
from tests.frugal import frugally

RAN = []


class Loud:
    """An object whose pickle calls something."""

    def __reduce__(self):
        return RAN.append, ("ran",)


class Slotted:
    __slots__ = ("centroids",)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("centroids", torch.arange(6.0).reshape(2, 3).T)
        self.weight = nn.Parameter(torch.ones(2, dtype=torch.half))
        self.note = {"a": [1, 2.5, None, True], (1, 2): "x", "loud": Loud()}
        self.table = collections.OrderedDict(b={1, 2})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_attributes_and_tensors_are_found(tmp_path, protocol):
    path = tmp_path / "a.pth"
    torch.save({"model": Wrapped(), "list": [Wrapped()], 3: "three"}, path, pickle_protocol=protocol)
    root = outline_of(path)
    found = root["model"]
    assert isinstance(found, Foreign) and found.name.endswith(" Wrapped") and root[3] == "three"
    assert torch.equal(tensor_at(path, found.get("centroids")), torch.arange(6.0).reshape(2, 3).T)
    assert torch.equal(tensor_at(path, root["list"][0].get("weight")), torch.ones(2, dtype=torch.half))
    assert found.get("note")["a"] == [1, 2.5, None, True] and (1, 2) not in found.get("note")
    assert isinstance(found.get("note")["loud"], Foreign) and isinstance(found.get("table")["b"], Foreign)
    assert found.get("nothing") is None and Foreign("x").get("y") is None and RAN == []


def test_nothing_is_imported_or_called(tmp_path):
    path = tmp_path / "a.pth"
    calls = call("os system", b"(X\x04\x00\x00\x00exit" + b"t") + call("nowhere.at all", b")")
    path.write_bytes(zipped(START + b"]" + b"(" + calls + b"e."))
    assert [each.name for each in outline_of(path)] == ["os system", "nowhere.at all"]


def read_or_none(path: Path, place: TensorAt) -> list[float] | None:
    try:
        return tensor_at(path, place).tolist()
    except UnsoundPickle:
        return None


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_costs_little(tmp_path, kind):
    path = tmp_path / "a.pth"
    path.write_bytes(zipped(START + HOSTILE[kind] + b"."))
    with frugally():
        try:
            found = outline_of(path)
        except Exception as error:
            assert not isinstance(error, MemoryError)
            return
        if isinstance(found, dict) and isinstance(found.get("a"), TensorAt):
            assert read_or_none(path, found["a"]) in (None, [0, 0, 0, 0])


FOUR, NONE, ROW, STEP = b"K\x04", b"K\x00", b"K\x04\x85", b"K\x01\x85"


@pytest.mark.parametrize("offset, size, stride", [
    (b"K\x01", ROW, STEP), (NONE, b"K\x05\x85", STEP), (NONE, ROW, b"K\x02\x85"),
    (NONE, b"K\x7f\x85", b"K\x00\x85"),
    (NONE, ROW, b")"), (b"J" + struct.pack("<i", -1), ROW, STEP), (NONE, b"N\x85", STEP),
    (NONE, b"J" + struct.pack("<i", -4) + b"\x85", STEP),
])
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, offset, size, stride):
    path = tmp_path / "a.pth"
    path.write_bytes(zipped(START + tensor(storage(FOUR), offset, size, stride) + b"."))
    with pytest.raises(UnsoundPickle):
        tensor_at(path, outline_of(path))


def test_a_tensor_in_its_storage_is_read(tmp_path):
    path = tmp_path / "a.pth"
    values = struct.pack("<4f", 1, 2, 3, 4)
    path.write_bytes(zipped(START + tensor(storage(FOUR), NONE, ROW, STEP) + b".", values=values))
    assert tensor_at(path, outline_of(path)).tolist() == [1, 2, 3, 4]
    path.write_bytes(zipped(START + tensor(storage(FOUR, "torch LongStorage"), NONE, ROW, STEP) + b"."))
    assert isinstance(outline_of(path), Foreign)  # numbers of another kind than weights


def test_an_archive_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(zipped(START + b"N.", zipfile.ZIP_DEFLATED, values=bytes(1_000_000)))
    with pytest.raises(UnsoundPickle, match="whose records lie in its"):
        outline_of(path)


def test_a_damaged_file_fails(tmp_path: Path):
    torch.save({"a": Wrapped()}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[:len(content) // 2])
    with pytest.raises(Exception, match=r"."):
        outline_of(tmp_path / "a.pth")
