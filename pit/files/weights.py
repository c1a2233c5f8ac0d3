"""How weights lie on disk: safetensors and PyTorch pickles in, safetensors out."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .whole import replacing

LONGEST_SAFETENSORS_HEADER = 100_000_000
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
BARE_TENSOR = "tensor"
SCALARS = (str, int, float, type(None))

# How a file begins, and what it is.
NOT_WEIGHTS = (
    (rb"version https://git-lfs", "a git-lfs pointer instead of the weights; run `git lfs pull`"),
    (rb"\s*<", "a web page instead of the weights; the download needs a login or went wrong. Repeat it"),
    (rb"GGUF", "a GGUF file, which is not read here; take the .safetensors file"),
    (rb".{257}ustar", "a tar archive, which is not read here; take the .safetensors file"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh", "a compressed archive; unpack it first"),
)


class WeightFileError(ValueError):
    """A weight file that is not what was expected: names file and key, what was found, and what to do."""


CheckpointError = WeightFileError  # its name up to version 0.5.0, for scripts


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a weight file, on the CPU and where possible mapped into memory, and its metadata.

    The first bytes tell what a file is, not its name; but a pickle must not call itself safetensors.
    Pickles are opened with `weights_only=True`, by torch 2.6 or later (before, that flag had holes:
    CVE-2025-32434). Nested dicts and lists are flattened with dots, scalars in them become metadata, a bare
    tensor gets the key `tensor`.

    Raises:
        WeightFileError: not there, empty, cut off, no weight file, or with anything but tensors in it.
    """
    path = Path(path)
    head = _first_bytes(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_SAFETENSORS_HEADER:
        state, metadata = _read_safetensors(path)
    elif head[:4] == b"PK\x03\x04" or re.match(rb"\x80[\x02-\x05]", head):
        state, metadata = _flat(path, _read_pickle(path, mmap=head[:2] == b"PK"))
    else:
        raise WeightFileError(f"{path} is {_what_else(head)}.")
    _check_tensors(path, state)
    return state, metadata


def read_keys(path: str | os.PathLike[str]) -> set[str]:
    """The names of the tensors of a safetensors file. Raises WeightFileError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise WeightFileError(f"{path} is no whole safetensors file ({error}). Fetch it again.") from error


def write_state(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file; it appears under its name only once it is whole.

    Tensors that share memory are written each for itself.

    Raises:
        WeightFileError: the file could not be written.
    """
    path = Path(path)
    try:
        with replacing(path) as unfinished:
            unfinished.touch()
            mode = unfinished.stat().st_mode
            save_file(dict(_apart(state)), unfinished, {"format": "pt"} | dict(metadata))
            unfinished.chmod(mode)  # safetensors makes files that only their owner can read
    except (OSError, SafetensorError) as error:
        raise WeightFileError(f"{path} could not be written: {error}") from error


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        found = "a folder; name the weight file in it" if path.is_dir() else "not there"
        raise WeightFileError(f"{path} is {found}.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightFileError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise WeightFileError(f"{path} is empty (0 bytes); the download was cut off. Fetch it again.")
    return head


def _what_else(head: bytes) -> str:
    for pattern, what in NOT_WEIGHTS:
        if re.match(pattern, head, re.DOTALL):
            return what
    return (
        f"neither a safetensors file nor a PyTorch pickle (it begins with {head[:12]!r}), but damaged, cut "
        "off or of another kind. Fetch it again"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightFileError(
            f"{path} is a damaged or cut off safetensors file ({error}). Fetch it again."
        ) from error


def _read_pickle(path: Path, mmap: bool) -> object:
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        raise WeightFileError(
            f"{path} is a PyTorch pickle, whose name must end in {', '.join(PICKLE_SUFFIXES)}: a pickle can "
            "carry code and may not pass for another format. Rename it."
        )
    if torch.__version__ < (2, 6):
        raise WeightFileError(
            f"{path} is a PyTorch pickle; expected torch 2.6 or later, which opens it safely, found "
            f"{torch.__version__}. Update torch, or take the .safetensors file."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged bytes are opcodes to the unpickler and fail in any way
        raise WeightFileError(f"{path} {_why_unreadable(str(error))}") from error


def _why_unreadable(message: str) -> str:
    name = re.search(r"GLOBAL (\S+)", message)
    if name:
        return (
            f"holds {name[1]} and was not opened: a pickle may hold nothing but tensors here, since anything "
            "else can run code. Take the .safetensors file, or one from a source that you trust."
        )
    return "is damaged, cut off, or a pickle of something else than weights. Fetch it again."


def _flat(path: Path, root: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and scalars of nested containers, under their dotted paths."""
    state, metadata, seen = {}, {}, set()
    waiting = [("", {BARE_TENSOR: root} if isinstance(root, Tensor) else root)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor) and name not in state:
            state[name] = value.detach()
        elif isinstance(value, dict | list | tuple) and (not value or id(value) not in seen):
            seen.add(id(value))
            waiting += reversed(list(_children(name, value)))
        elif isinstance(value, SCALARS):
            metadata[name] = str(value)
        else:
            raise WeightFileError(
                f"{path} holds a {type(value).__name__} under {name!r}, expected plain dicts with each "
                "tensor under a name of its own. It was not written as weights; take the published file."
            )
    return state, metadata


def _children(name: str, container: dict | list | tuple) -> Iterator[tuple[str, object]]:
    items = container.items() if isinstance(container, dict) else enumerate(container)
    return ((f"{name}.{key}" if name else str(key), value) for key, value in items)


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Only plain tensors whose bytes the file really has: no sparse, quantised, meta or stretched ones."""
    if not state:
        raise WeightFileError(f"{path} holds no tensors. Fetch the published file.")
    size = path.stat().st_size
    for key, tensor in state.items():
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.is_nested or tensor.nbytes > size:
            raise WeightFileError(
                f"{path}: {key} is no plain tensor whose numbers all lie in the file of {size} bytes, but "
                "sparse, quantised or stretched. Save contiguous tensors."
            )


def _apart(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Contiguous tensors, none of which shares its storage with another, as safetensors demands."""
    seen = set()
    for key, tensor in state.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        yield key, tensor.clone() if storage in seen else tensor
        seen.add(storage)
