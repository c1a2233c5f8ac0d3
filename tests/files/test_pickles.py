"""Pickles of a few bytes that ask for gigabytes or for hours are refused before torch opens them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from pit.files import weights
from pit.files.pickle_machine import MOST_OPCODES
from pit.files.pickles import LONGEST_KEY
from pit.files.weights import WeightFileError, load_states, read_state, save_states
from tests.files.test_weights import PRIOR, same, save_legacy
from tests.frugal import frugally

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
START = b"\x80\x02"
GIGABYTES = b"\x8a\x05" + (8_000_000_000).to_bytes(5, "little")  # as LONG1
KEY = b"X\x01\x00\x00\x00a"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(function: str, arguments: bytes) -> bytes:
    return b"c" + function.replace(" ", "\n").encode() + b"\n" + arguments + b"R"


def storage(items: bytes, kind: str = "torch FloatStorage", key: str = "0") -> bytes:
    kind = b"c" + kind.replace(" ", "\n").encode() + b"\n"
    return b"(" + text("storage") + kind + text(key) + text("cpu") + items + b"tQ"


def tensor(stored: bytes, offset: bytes, size: bytes, stride: bytes) -> bytes:
    hooks = b"\x89" + call("collections OrderedDict", b")")
    return call("torch._utils _rebuild_tensor_v2", b"(" + stored + offset + size + stride + hooks + b"t")


def zipped(content: bytes, method: int = zipfile.ZIP_STORED, values: bytes = bytes(16)) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/byteorder", b"little")
        archive.writestr("a/data/0", values)
        archive.writestr("a/version", b"3\n")
    return file.getvalue()


def legacy(content: bytes) -> bytes:
    content = content.replace(b"tQ", b"NtQ")  # there, a storage says of what it is a view
    return MAGIC + content + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)


def nested_key() -> bytes:
    """A tuple that holds a tuple twice, 60 deep: to hash it takes 2 to the power of 60 steps."""
    doubled = b"".join(b"q%c0h%c\x86" % (level, level) for level in range(60))
    return b"}" + b")" + doubled.replace(b"0h", b"h") + b"Ns"


def dictionary(items: bytes, offset: bytes, size: bytes, stride: bytes) -> bytes:
    return b"}" + KEY + tensor(storage(items), offset, size, stride) + b"s"


NONE, FOUR, ROW, STEP, FAR = b"K\x00", b"K\x04", b"K\x04\x85", b"K\x01\x85", GIGABYTES + b"\x85"
PLAIN = dictionary(FOUR, NONE, ROW, STEP)
HOSTILE = {
    "a call that allocates": call("__builtin__ bytearray", GIGABYTES + b"\x85"),
    "a call of set": call("__builtin__ set", b"]\x85"),
    "a nested key": nested_key(),
    "a storage beyond the file": dictionary(GIGABYTES, NONE, ROW, STEP),
    "a tensor beyond its storage": dictionary(FOUR, NONE, FAR, STEP),
    "an offset beyond the storage": dictionary(FOUR, GIGABYTES, ROW, STEP),
    "a stride beyond the storage": dictionary(FOUR, NONE, ROW, FAR),
    "an expanded tensor": dictionary(FOUR, NONE, FAR, NONE + b"\x85"),
    "a storage made by hand": call("torch.storage UntypedStorage", GIGABYTES + b"\x85"),
    "a tensor made by hand": call("torch FloatTensor", GIGABYTES + b"\x85"),
    "a new object": b"ctorch\nSize\n(K\x01K\x02t\x85\x81",
    "a text of two gigabytes": b"X\xff\xff\xff\x7f",
    "a place in the memo that is not there": b"}" + KEY + b"j\xff\xff\xff\xffs",
    "a long integer": b"}" + KEY + b"\x8a\xff" + bytes(254) + b"\x01s",
    "an integer as text": b"I" + b"9" * 900_000 + b"\n",
    "a long key": b"}" + text("k" * (LONGEST_KEY + 1)) + b"Ns",
    "very many opcodes": b"N0" * 450_000,
    "very many values": b"](" + b"N" * 900_000 + b"e",
    "deep nesting": b"]" * 90_000 + b"a" * 89_999,
    "deep dictionaries": b"}" * 60_000 + b"",
    "a name that grows": b"}" + text("k" * 500) + b"q\x00" + (b"}h\x00" * 90_000) + b"N" + b"s" * 90_001,
    "an attribute that is called": b"c__builtin__\ngetattr\n" + PLAIN + KEY + b"\x86R",
    "another protocol": b"\x95" + bytes(8),
    "nothing on the stack": b"0" * 20 + b"ssssR",
    "a mark without a start": b"tut",
    "a persistent id of another kind": text("module") + b"Q",
    "a foreign persistent id": b"(" + text("module") + b"NNNtQ",
}


@pytest.mark.parametrize("wrap", [zipped, legacy, lambda content: content], ids=["zip", "legacy", "bare"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_costs_little_and_is_refused(tmp_path, kind, wrap):
    path = tmp_path / "prior.ckpt"
    path.write_bytes(wrap(START + HOSTILE[kind] + b"."))
    with frugally(), pytest.raises(WeightFileError) as caught:
        read_state(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ") and message.endswith(".") and len(message) <= 1000


# What torch may read: it costs little, and what comes of it is refused.
HARMLESS = {"an expanded tensor", "deep nesting", "deep dictionaries", "a name that grows"}


@pytest.mark.parametrize("kind", sorted(HOSTILE.keys() - HARMLESS))
def test_torch_does_not_see_a_hostile_pickle(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has opened it"))
    path = tmp_path / "prior.ckpt"
    path.write_bytes(zipped(START + HOSTILE[kind] + b"."))
    with pytest.raises(WeightFileError):
        read_state(path)


@pytest.mark.parametrize("wrap", [zipped, legacy])
def test_the_same_pickle_without_the_hostile_part_is_read(tmp_path, wrap):
    path = tmp_path / "prior.ckpt"
    path.write_bytes(wrap(START + PLAIN + b"."))
    assert same(read_state(path)[0], {"a": torch.zeros(4)})


def test_an_archive_that_expands_costs_little_and_is_refused(tmp_path):
    path = tmp_path / "prior.ckpt"
    long = START + b"]" + text("a" * 400_000_000) + b"a."
    for content, values in ((long, bytes(16)), (START + PLAIN + b".", bytes(400_000_000))):
        path.write_bytes(zipped(content, zipfile.ZIP_DEFLATED, values))
        del content, values
        with frugally(), pytest.raises(WeightFileError, match="whose records lie in its .* bytes"):
            read_state(path)


def deflated(path: Path, name: str) -> Path:
    """The same archive as tools write it that compress."""
    target = path.with_name(name)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in source.infolist():
            archive.writestr(record.filename, source.read(record))
    return target


def test_a_compressed_archive_gives_the_very_weights(tmp_path):
    torch.save(PRIOR, tmp_path / "prior.ckpt")
    assert same(read_state(deflated(tmp_path / "prior.ckpt", "packed.ckpt"))[0], PRIOR)


def test_only_stored_records_are_mapped(tmp_path, monkeypatch):
    torch.save(PRIOR, tmp_path / "prior.ckpt")
    packed, mapped, load = deflated(tmp_path / "prior.ckpt", "packed.ckpt"), [], torch.load

    def loaded(path: Path, mmap: bool, **options: object) -> object:
        mapped.append(mmap)
        return load(path, mmap=mmap, **options)

    monkeypatch.setattr(torch, "load", loaded)
    for path in (tmp_path / "prior.ckpt", packed):
        read_state(path)
    assert mapped == [True, False]


def test_two_records_of_one_name_are_refused(tmp_path):
    path = tmp_path / "prior.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/data.pkl", "a/DATA.pkl"):
            archive.writestr(name, START + PLAIN + b".")
    with pytest.raises(WeightFileError, match="got two with one name"):
        read_state(path)


OLD_TYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8,
    torch.bool, torch.complex64,
]
# torch itself reads none of these from files in its old format.
NEW_TYPES = [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16]


@pytest.mark.parametrize("save, dtype", [
    *((torch.save, dtype) for dtype in OLD_TYPES + NEW_TYPES), *((save_legacy, dtype) for dtype in OLD_TYPES),
])
def test_tensors_of_every_type_are_read(tmp_path, dtype, save):
    values = torch.arange(6).reshape(2, 3).to(dtype)
    content = {"a": values, "turned": values.T, "row": values[1], "none": values[:0], "one": values[0, 0]}
    save(content, tmp_path / "x.pt")
    read = read_state(tmp_path / "x.pt")[0]
    assert read.keys() == content.keys()
    assert {value.dtype for value in read.values()} == {dtype}
    wide = torch.complex64 if dtype.is_complex else torch.float32
    assert all(torch.equal(read[key].to(wide), content[key].to(wide)) for key in content)


def tagged(value: torch.Tensor) -> torch.Tensor:
    value.note = "an attribute of its own"
    return value


def test_what_trainings_save_is_read(tmp_path):
    module = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": module.state_dict(), "parameters": dict(module.named_parameters()), "epoch": 3,
        "loss": 0.5,
        "optimizer": optimizer.state_dict(), "shape": torch.Size([2, 3]), "name": "mine", "done": True,
        "random": torch.get_rng_state(), "below zero": -5, "tagged": tagged(torch.ones(2)), "seed": 2**62,
    }
    for save in (torch.save, save_legacy):
        save(content, tmp_path / "x.pt")
        state, notes = read_state(tmp_path / "x.pt")
        assert torch.equal(state["state_dict.weight"], module.weight.detach())
        assert torch.equal(state["optimizer.state.0.exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
        assert notes["below zero"] == "-5" and notes["optimizer.param_groups.0.lr"] == "0.001"
        assert torch.equal(state["tagged"], torch.ones(2))


def test_our_own_states_are_looked_through_as_well(tmp_path):
    save_states(tmp_path / "x.pt", {"net": {"a": torch.ones(2)}})
    assert torch.equal(load_states(tmp_path / "x.pt")["net"]["a"], torch.ones(2))
    (tmp_path / "x.pt").write_bytes(zipped(START + HOSTILE["a call that allocates"] + b"."))
    with pytest.raises(ValueError, match="got __builtin__.bytearray"):
        load_states(tmp_path / "x.pt")


def test_overlapping_tensors_are_counted(tmp_path):
    base = torch.arange(1000.0)
    torch.save({"a": base, "b": base}, tmp_path / "tied.pt")
    assert len(read_state(tmp_path / "tied.pt")[0]) == 2
    torch.save({f"{number}": base for number in range(100)}, tmp_path / "many.pt")
    with pytest.raises(WeightFileError, match="bytes of them that overlap"):
        read_state(tmp_path / "many.pt")


def test_the_most_opcodes_are_read_in_time(tmp_path):
    path = tmp_path / "prior.ckpt"
    rest = b"}" + text("list") + b"](" + b"N" * (MOST_OPCODES - 60) + b"es"
    path.write_bytes(zipped(START + b"]" + PLAIN + b"a" + rest + b"a."))
    with frugally():
        assert "0.a" in read_state(path)[0]


def test_any_error_of_torch_is_ours(tmp_path, monkeypatch):
    torch.save(PRIOR, tmp_path / "prior.ckpt")

    def fail(*_, **__):
        raise AttributeError("of a kind that nobody expects")

    monkeypatch.setattr(weights.torch, "load", fail)
    with pytest.raises(WeightFileError, match="got a damaged or truncated file"):
        read_state(tmp_path / "prior.ckpt")
