"""Pickles of under a megabyte that have very many of something are read or refused within 4 s and 500 MB."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pit.files.lora import read_lora
from pit.files.pickles import MOST_CALLS
from pit.files.weights import WeightFileError, read_state
from pit.ip_adapter.files import read_ip_adapter
from pit.object_insertion.files import read_embedding_optimizer
from pit.piece_it_together.prior_files import read_prior
from tests.files.test_pickles import FOUR, MAGIC, NONE, ROW, START, STEP, call, storage, text, zipped
from tests.frugal import frugally

TENSOR, PARAMETER = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter_with_state\n"
HOOKS = b"\x89" + call("collections OrderedDict", b")")
PLAIN = b"(" + storage(FOUR) + NONE + ROW + STEP + HOOKS + b"t"
SIXTEEN = b"}(" + b"".join(text(f"a{number}") + b"N" for number in range(16)) + b"u"
NUMBERS = b"}(" + b"".join(b"M" + struct.pack("<H", number) + b"N" for number in range(60_000)) + b"u"


def again(function: bytes, arguments: bytes, times: int) -> bytes:
    """A list of what many calls with the same arguments give."""
    return function + b"q\x00" + arguments + b"q\x01](" + b"h\x00h\x01R" * times + b"e"


def storages(count: int) -> bytes:
    """Of no items each, as short as they can be told."""
    each = (b"(h\x00h\x01" + text(str(number)) + b"h\x02K\x00tQ" for number in range(count))
    return b"](" + text("storage") + b"q\x00ctorch\nFloatStorage\nq\x01" + text("cpu") + b"q\x02" + b"".join(
        each) + b"e"


def loras(end: str, patterns: list[str]) -> bytes:
    """Modules that share the beginning of their names, with patterns for their alphas."""
    settings = json.dumps({"lora_alpha": 3, "alpha_pattern": dict.fromkeys(patterns, 1)})
    square = b"(" + storage(FOUR) + NONE + b"K\x02K\x02\x86K\x02K\x01\x86" + HOOKS + b"t"
    halves = b"".join(text(f"lora_{half}") + b"}" + text("weight") + b"h\x05s" for half in "AB")
    modules = b"".join(text(str(number)) + b"}(" + halves + b"u" for number in range(3500))
    return (b"}(" + text("lora_adapter_metadata") + text(settings) + text("t") + TENSOR + square + b"Rq\x05"
            + text("down_blocks" + end) + b"}(" + modules + b"uu")


MANY = {
    "storages": storages(37_000),
    "calls of one tensor": again(TENSOR, PLAIN, MOST_CALLS - 10),
    "calls, too many": again(TENSOR, PLAIN, 95_000),
    "calls with very many arguments": again(TENSOR, PLAIN[:-1] + b"N" * 100_000 + b"t", 60_000),
    "sizes": again(b"ctorch\nSize\n", b"(K\x01K\x01t\x85", MOST_CALLS - 10),
    "ordered dicts": again(b"ccollections\nOrderedDict\n", b")", MOST_CALLS - 10),
    "parameters with attributes": again(
        PARAMETER, b"(" + TENSOR + PLAIN + b"R" + HOOKS + SIXTEEN + b"t", MOST_CALLS - 10),
    "parameters with very many attributes": again(
        PARAMETER, b"(" + TENSOR + PLAIN + b"R" + HOOKS + NUMBERS + b"t", 30_000),
    "tensors of a class with attributes": again(
        b"ctorch._tensor\n_rebuild_from_type_v2\n",
        b"(" + TENSOR + b"ctorch.nn.parameter\nParameter\n" + PLAIN + SIXTEEN + b"t", MOST_CALLS - 10),
    "tensors with very much metadata": again(TENSOR, PLAIN[:-1] + NUMBERS + b"t", 30_000),
    "attributes of a module": NUMBERS + b"q\x00" + HOOKS[1:] + b"h\x00b" * 60_000,
    "attributes of a module, few each": SIXTEEN + b"q\x00" + HOOKS[1:] + b"h\x00b" * 140_000,
    "places of one tensor": TENSOR + PLAIN + b"Rq\x00](" + b"h\x00" * 290_000 + b"e",
    "places of one storage": b"(" + storage(FOUR)[1:-2] + b"tq\x00](" + b"h\x00Q" * (MOST_CALLS - 10) + b"e",
    "items of a storage": b"(" + text("storage") + b"N" * 100_000 + b"tq\x00](" + b"h\x00Q" * 90_000 + b"e",
}
NAMES = {
    "long": b"}" + text("k" * 500) + b"](" + b"N" * 290_000 + b"es",
    "wrappers": b"}" + text("module." * 71) + b"](" + TENSOR + PLAIN + b"Rq\x00" + b"h\x00" * 7500 + b"es",
    "words": b"}" + text("x." * 250) + b"](" + TENSOR + PLAIN + b"Rq\x00" + b"h\x00" * 7500 + b"es",
    "words that say LoRA": loras(".lora_A.x" * 54, []),
    "patterns of every length": loras(".a" * 235, [".".join("b" + "a" * length) for length in range(255)]),
}


def old(content: bytes) -> bytes:
    """In a legacy file, where a storage says of what it is a view; padded, so that nothing is expanded."""
    end = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(150_000)
    return MAGIC + content.replace(b"tQ", b"NtQ") + end


def new(content: bytes) -> bytes:
    return zipped(content, values=bytes(150_000))


@pytest.mark.parametrize("wrap", [new, old])
@pytest.mark.parametrize("kind", MANY)
def test_very_many_of_anything_cost_little(tmp_path, kind, wrap):
    path = tmp_path / "x.ckpt"
    path.write_bytes(wrap(START + MANY[kind] + b"."))
    assert 100_000 < path.stat().st_size < 1_000_000
    read_frugally(read_state, path)


@pytest.mark.parametrize("read", [read_prior, read_ip_adapter, read_lora, read_embedding_optimizer])
@pytest.mark.parametrize("kind", NAMES)
def test_very_many_names_cost_little(tmp_path, kind, read):
    path = tmp_path / "x.ckpt"
    path.write_bytes(new(START + NAMES[kind] + b"."))
    read_frugally(read, path)


def read_frugally(read: Callable[[Path], object], path: Path) -> None:
    with frugally():
        try:
            read(path)
        except WeightFileError as error:
            assert str(error).startswith(f"{path}: expected ") and len(str(error)) <= 1000


REFUSED = [
    "calls, too many", "calls with very many arguments", "parameters with very many attributes",
    "tensors with very much metadata", "attributes of a module", "items of a storage",
]


@pytest.mark.parametrize("kind", REFUSED)
def test_torch_does_not_see_what_would_cost_it_much(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has opened it"))
    path = tmp_path / "x.ckpt"
    path.write_bytes(zipped(START + MANY[kind] + b"."))
    with pytest.raises(WeightFileError):
        read_state(path)


def test_very_many_storages_that_are_there_are_read_in_time(tmp_path):
    path, count = tmp_path / "x.pt", 12_000
    keys = [str(number) for number in range(count)]
    head = text("storage") + b"q\x00ctorch\nByteStorage\nq\x01" + text("cpu") + b"q\x02" + TENSOR + b"q\x03"
    shape = b"K\x00K\x01\x85q\x04h\x04\x89N"
    each = (b"h\x03((h\x00h\x01" + text(key) + b"h\x02K\x01NtQ" + shape + b"tR" for key in keys)
    values = b"".join(struct.pack("<q", 1) + bytes([int(key) % 256]) for key in keys)
    path.write_bytes(MAGIC + START + head + b"](" + b"".join(each) + b"e." + pickle.dumps(keys, 2) + values)
    assert path.stat().st_size < 1_000_000
    with frugally():
        state, _ = read_state(path)
    assert len(state) == count and all(value.item() == int(key) % 256 for key, value in state.items())
