"""Weight files on disk: every format is read, anything else is refused with one clear error."""

import io
import os
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.torch_version import TorchVersion

from pit.files import weights
from pit.files.weights import WeightFileError, read_state, write_state
from pit.piece_it_together.prior_files import read_prior
from tests.piece_it_together.random_prior import random_prior

PRIOR = random_prior().state_dict()


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def save_legacy(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS = {"zip": torch.save, "legacy": save_legacy, "safetensors": save_file}
SUFFIXES = {"zip": ".ckpt", "legacy": ".pt", "safetensors": ".safetensors"}


def write(folder: Path, kind: str, state: dict[str, Tensor] = PRIOR) -> Path:
    path = folder / f"prior{SUFFIXES[kind]}"
    WRITERS[kind](state, path)
    return path


class Touch:
    """Pickled, it is a call: unpickling it without care creates a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_read(tmp_path, kind):
    state, metadata = read_state(write(tmp_path, kind))
    assert same(state, PRIOR) and metadata == {}


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".BIN"])
def test_every_suffix_of_a_pickle_is_read(tmp_path, suffix):
    path = tmp_path / f"prior{suffix}"
    torch.save(PRIOR, path)
    assert same(read_state(str(path))[0], PRIOR)


def test_safetensors_are_read_under_any_name(tmp_path):
    save_file(PRIOR, tmp_path / "prior.ckpt", {"num_heads": "4"})
    state, metadata = read_state(tmp_path / "prior.ckpt")
    assert same(state, PRIOR) and metadata == {"num_heads": "4"}


def test_nested_containers_are_flattened_and_scalars_become_metadata(tmp_path):
    a, b, c = torch.arange(3.0).unbind()
    content = {"net": {"a": a, "deep": [b, {"c": c}]}, "step": 7, "note": None, "empty": ((), {})}
    torch.save(content, tmp_path / "x.pt")
    state, metadata = read_state(tmp_path / "x.pt")
    assert same(state, {"net.a": a, "net.deep.0": b, "net.deep.1.c": c})
    assert metadata == {"step": "7", "note": "None"}


def test_a_bare_tensor_and_parameters_are_read_as_tensors(tmp_path):
    torch.save(torch.nn.Parameter(torch.ones(16, 8)), tmp_path / "direction.pt")
    state, _ = read_state(tmp_path / "direction.pt")
    assert same(state, {"tensor": torch.ones(16, 8)}) and type(state["tensor"]) is Tensor
    assert not state["tensor"].requires_grad


@pytest.mark.parametrize("kind", WRITERS)
def test_writing_into_what_was_read_does_not_reach_the_file(tmp_path, kind):
    path = write(tmp_path, kind)
    before = path.read_bytes()
    for value in read_state(path)[0].values():
        value.zero_()
    assert path.read_bytes() == before


def tar_of_tensors() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return content.getvalue()


def zip_of_text() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    return content.getvalue()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("content, message", [
    (b"", "got an empty one .0 bytes"),
    (b"<!DOCTYPE html><html><body>Sign in</body></html>", "expected a weight file, got a web page"),
    (b"\n  <html lang='en'>404</html>", "got a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "got a git-lfs pointer"),
    (tar_of_tensors(), "got a tar archive"),
    (b"\x1f\x8b\x08" + bytes(40), "got a compressed archive"),
    (b"GGUF\x03" + bytes(40), "got a GGUF file"),
    (b"{\"error\": \"not found\"}", "a safetensors file or a PyTorch pickle, got a file that begins"),
    (b"cos\nsystem\n(S'true'\ntR.", "a safetensors file or a PyTorch pickle, got a file that begins"),
    (bytes(range(200, 256)), "a safetensors file or a PyTorch pickle, got a file that begins"),
    (b"P", "a safetensors file or a PyTorch pickle, got a file that begins"),
])
def test_what_is_not_a_weight_file_is_named(tmp_path, suffix, content, message):
    path = tmp_path / f"prior{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=message) as caught:
        read_state(path)
    assert str(path) in str(caught.value)


def test_archives_of_other_things_are_damaged_pickles(tmp_path):
    (tmp_path / "other.pt").write_bytes(zip_of_text())
    with pytest.raises(WeightFileError, match="got a damaged or truncated file, or a pickle"):
        read_state(tmp_path / "other.pt")


def test_folders_and_missing_files_are_named(tmp_path):
    with pytest.raises(WeightFileError, match="got a folder. Name the file in it"):
        read_state(tmp_path)
    with pytest.raises(WeightFileError, match=r"prior\.ckpt: expected a weight file, got no such file"):
        read_state(tmp_path / "prior.ckpt")


def test_files_without_tensors_are_refused(tmp_path):
    torch.save({"step": 3}, tmp_path / "none.pt")
    save_file({}, tmp_path / "none.safetensors")
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(WeightFileError, match="expected tensors, got none"):
            read_state(tmp_path / name)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".safetensors", ".pkl"])
@pytest.mark.parametrize("where", ["alone", "inside"])
@pytest.mark.parametrize("dump", ["zip", "legacy", "plain"])
def test_code_in_a_pickle_never_runs(tmp_path, dump, where, suffix):
    canary, path = tmp_path / "canary", tmp_path / f"prior{suffix}"
    content = Touch(canary) if where == "alone" else PRIOR | {"x_embedder.weight": Touch(canary)}
    if dump == "plain":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        WRITERS[dump](content, path)
    with pytest.raises(WeightFileError) as caught:
        read_prior(path)
    assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    assert not canary.exists()
    os.system(f"touch {canary}")
    assert canary.exists()  # the canary would have sung


def test_the_name_of_what_a_hostile_pickle_calls_is_told(tmp_path):
    torch.save(Touch(tmp_path / "canary"), tmp_path / "prior.ckpt")
    with pytest.raises(WeightFileError, match=r"got (posix|nt)\.system\. It was not opened"):
        read_state(tmp_path / "prior.ckpt")


def test_a_pickle_does_not_pass_for_safetensors(tmp_path):
    torch.save(PRIOR, tmp_path / "prior.safetensors")
    with pytest.raises(WeightFileError, match=r"to be named \.ckpt, \.pt, \.pth, \.bin, got '\.safetensors'"):
        read_state(tmp_path / "prior.safetensors")


@pytest.mark.parametrize("version", ["2.5.1", "2.4.0+cpu"])
def test_old_torch_opens_no_pickles(tmp_path, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    for kind in ("zip", "legacy"):
        with pytest.raises(WeightFileError, match=f"torch 2.6 or later, .*, got {version[:3]}"):
            read_state(write(tmp_path, kind))
    assert same(read_state(write(tmp_path, "safetensors"))[0], PRIOR)


@pytest.mark.parametrize("kind", WRITERS)
def test_files_truncated_anywhere_are_refused(tmp_path, kind):
    path = write(tmp_path, kind)
    whole = path.read_bytes()
    draw = random.Random(5)
    cuts = {1, 2, 4, 8, 9, 100, len(whole) - 1, len(whole) // 2}
    cuts |= {draw.randrange(1, len(whole)) for _ in range(170)} | {draw.randrange(1, 4096) for _ in range(30)}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightFileError):
            read_prior(path, num_heads=4)


@pytest.mark.parametrize("kind", WRITERS)
def test_files_with_wrong_bytes_are_read_or_refused(tmp_path, kind):
    path = write(tmp_path, kind)
    whole = path.read_bytes()
    draw, refused = random.Random(6), 0
    for place in [draw.randrange(6000) for _ in range(100)] + [draw.randrange(len(whole)) for _ in range(50)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1:])
        try:
            read_prior(path, num_heads=4)
        except WeightFileError:
            refused += 1
    assert refused > 10


def looped() -> dict:
    content = {"a": torch.ones(2)}
    content["again"] = content
    return content


def doubling() -> dict:
    content = {"a": torch.ones(2)}
    for _ in range(60):
        content = {"left": content, "right": content}
    return content


@pytest.mark.parametrize("content, message", [
    ({"a": torch.ones(3).to_sparse()}, "nothing but plain tensors in .*, got .*_rebuild_sparse_tensor"),
    ({"a": torch.empty(3, device="meta")}, "nothing but plain tensors in .*_rebuild_meta_tensor"),
    ({"a": torch.zeros(1).expand(10**9, 10**6)}, "expected a to be a plain tensor"),
    ({"a": torch.ones(2), "b": {1, 2}}, r"got __builtin__\.set"),
    ({"a.b": torch.ones(2), "a": {"b": torch.zeros(2)}}, "got a Tensor under 'a.b'"),
    (looped(), "got a dict under 'again'"),
    (doubling(), "got a dict under "),
    (torch.nn.Linear(2, 2), "It was not opened"),
])
def test_contents_that_are_not_plain_tensors_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(WeightFileError, match=message):
        read_state(tmp_path / "odd.pt")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch is giving up both kinds
def test_nested_and_quantized_tensors_are_refused(tmp_path):
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    for odd in (nested, torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)):
        torch.save({"a": odd}, tmp_path / "odd.pt")
        with pytest.raises(WeightFileError, match="nothing but plain tensors in a PyTorch pickle, got torch"):
            read_state(tmp_path / "odd.pt")


def test_shared_and_turned_tensors_are_written_separately(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base, "turned": base.T, "row": base[1], "none": torch.empty(0, 4)}
    write_state(tmp_path / "x.safetensors", state, {"note": "kept"})
    read, metadata = read_state(tmp_path / "x.safetensors")
    assert same(read, state) and metadata == {"format": "pt", "note": "kept"}


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "other").touch()
    write_state(tmp_path / "x.safetensors", {"a": torch.ones(2)}, {})
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_an_unfinished_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "x.safetensors"
    write_state(path, {"a": torch.ones(2)}, {})

    def fail(state: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        target.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(weights, "save_file", fail)
    expected = WeightFileError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_state(path, {"a": torch.zeros(2)}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert torch.equal(read_state(path)[0]["a"], torch.ones(2))


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "none" / "x.safetensors"
    with pytest.raises(WeightFileError, match="could not be written") as caught:
        write_state(path, {"a": torch.ones(2)}, {})
    assert str(path) in str(caught.value)


def test_a_note_of_a_file_name_that_is_no_text_is_written(tmp_path):
    write_state(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {"source": os.fsdecode(b"prior\xff.ckpt")})
    assert read_state(tmp_path / "a.safetensors")[1]["source"] == "prior?.ckpt"
