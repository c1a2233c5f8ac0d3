"""Weights on disk: safetensors and PyTorch pickles are read, safetensors is written."""
from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..messages import ShortError, quoted
from .archives import UnsoundPickle
from .pickles import LONGEST_KEY, MOST_DIMENSIONS, check_pickle
from .whole import clean_leftovers, not_written, replacing, write_whole

LONGEST_SAFETENSORS_HEADER = 25_000_000  # bytes; that of a complete SDXL with a trainer's notes has 1 or 2
MOST_TENSORS = 50_000  # a complete SDXL has 2,500, with the state of its optimizer three times as many
MOST_LETTERS = 2_000_000  # in the names of all tensors; a complete SDXL with its optimizer has 0.7 million
SHARED = 4  # how often the bytes of a file may count where tensors share them, as tied weights do
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
BARE_TENSOR = "tensor"
SCALARS = (str, int, float, type(None))

# What people download by mistake: how such a file begins, what it is, and what to do. A tar archive begins
# with a file name; only its magic word at byte 257 is fixed.
NOT_WEIGHTS = (
    (rb"version https://git-lfs", "a git-lfs pointer. Run `git lfs pull`"),
    (rb"\s*<", "a web page. The download needs a login or failed; repeat it"),
    (rb"GGUF", "a GGUF file, which is not supported. Take the .safetensors file"),
    (rb".{257}ustar", "a tar archive, which is not supported. Take the .safetensors file"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh", "a compressed archive. Unpack it first"),
)


class WeightFileError(ShortError):
    """A weight file that is not what was expected: names file and key, both sides, and what to do."""


CheckpointError = WeightFileError  # its name up to version 0.5.0, for scripts


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a weight file, on the CPU and memory-mapped where possible, and its metadata.

    The first bytes decide what a file is, not its name; but a pickle must not be named .safetensors.
    Pickles are opened with `weights_only=True`, and only by torch 2.6 or later: before that, the flag could
    be bypassed (CVE-2025-32434). Nested dicts and lists are flattened with dots, scalars in them become
    metadata, a bare tensor gets the key `tensor`.

    Raises:
        WeightFileError: the file is missing, empty, truncated, not a weight file, or holds anything but
            tensors.
    """
    path = Path(path)
    head = _first_bytes(path)
    # safetensors: the length of the header (8 bytes, little-endian), then JSON. Pickles by torch: a zip
    # archive since 1.6, before that a bare pickle of protocol 2 to 5, which cannot be memory-mapped.
    if _looks_like_safetensors(head):
        state, metadata = _read_safetensors(path)
    elif head[:4] == b"PK\x03\x04" or re.match(rb"\x80[\x02-\x05]", head):
        state, metadata = _flat(path, _read_pickle(path))
    else:
        raise WeightFileError(f"{path}: expected {_what_else(head)}.")
    _check_tensors(path, state)
    return state, metadata


def read_keys(path: str | os.PathLike[str]) -> set[str]:
    """The names of the tensors in a safetensors file. Raises WeightFileError for any other file."""
    return read_names(path)[0]


def read_names(path: str | os.PathLike[str]) -> tuple[set[str], dict[str, str]]:
    """The names of the tensors in a safetensors file and its metadata; errors as in `read_keys`."""
    path = Path(path)
    head = _first_bytes(path)
    if not _looks_like_safetensors(head):
        raise WeightFileError(f"{path}: expected {_what_else(head)}.")
    _check_header(path, head)
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys()), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _broken_safetensors(path, error) from error


def write_state(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str], *,
    marked: bool = True,
) -> None:
    """Write a safetensors file; it appears under its name only once it is complete.

    Tensors that share memory are written separately. What killed processes left in the folder is removed.

    Args:
        marked: name PyTorch in the metadata, as other programs expect. The entries of metadata lie in any
            order, so that only a file with a single one has the same bytes each time.
    Raises:
        WeightFileError: the file could not be written.
    """
    path = Path(path)
    clean_leftovers(path.parent)
    try:
        with replacing(path, sum(tensor.nbytes for tensor in state.values())) as unfinished:
            # safetensors creates files that only their owner can read. The permissions that the user's umask
            # asks for are therefore taken from an ordinary file and restored afterwards.
            unfinished.touch()
            mode = unfinished.stat().st_mode
            facts = ({"format": "pt"} if marked else {}) | dict(metadata)
            # A file name that is not UTF-8, as Linux allows it, becomes text that no file can hold.
            facts = {name: fact.encode("utf-8", "replace").decode() for name, fact in facts.items()}
            save_file(dict(_apart(state)), unfinished, facts)
            unfinished.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise WeightFileError(not_written(path, error)) from error


def save_states(path: Path, content: Mapping[str, object]) -> None:
    """Write nested states of modules and optimizers as a pickle, for the next start of the same training.

    The file appears only when it is complete. Raises OSError if it cannot be written.
    """
    # By a buffer: torch's own writer turns a full disk into a RuntimeError that does not tell of it.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    clean_leftovers(path.parent)
    write_whole(path, buffer.getbuffer())


def load_states(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save_states` has written, on a device. Raises UnsoundPickle for anything else."""
    check_pickle(path)
    return torch.load(path, map_location=device, weights_only=True)


def _first_bytes(path: Path) -> bytes:
    # os.path rather than Path: its questions have an answer for names that no file system can hold. And
    # asked before opening, since a pipe in a file's place would wait for a writer forever.
    if not os.path.isfile(path):
        got = "no such file. Check its name and folder"
        if os.path.isdir(path):
            got = "a folder. Name the file in it"
        elif os.path.exists(path):
            got = "a pipe or a device. Name an ordinary file"
        raise WeightFileError(f"{path}: expected a weight file, got {got}.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightFileError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if not head:
        raise WeightFileError(
            f"{path}: expected a weight file, got an empty one (0 bytes). The download was cut off; fetch it "
            "again."
        )
    return head


def _what_else(head: bytes) -> str:
    """What was expected and what a file is instead, to follow "expected"."""
    for pattern, what in NOT_WEIGHTS:
        if re.match(pattern, head, re.DOTALL):
            return f"a weight file, got {what}"
    return (
        f"a safetensors file or a PyTorch pickle, got a file that begins with {_beginning(head)}. It is "
        "damaged, truncated or of another kind; fetch it again"
    )


def _beginning(head: bytes) -> str:
    """The first bytes of a file as text if it is some, and as numbers otherwise."""
    start = head[:12]
    text = start.decode("ascii", errors="replace").rstrip("\n")
    return repr(text) if text.isprintable() and start.isascii() else f"the bytes {start.hex(' ')}"


def _broken_safetensors(path: Path, error: Exception) -> WeightFileError:
    return WeightFileError(
        f"{path}: expected a complete safetensors file, got a damaged or truncated one ({error}). Fetch it "
        "again."
    )


def _looks_like_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**48


def _check_header(path: Path, head: bytes) -> None:
    """The length of a safetensors header, before its library reads it. Raises WeightFileError."""
    length, room = int.from_bytes(head[:8], "little"), path.stat().st_size - 8
    if length > min(room, LONGEST_SAFETENSORS_HEADER):
        raise WeightFileError(
            f"{path}: expected a complete safetensors file with a header of at most "
            f"{LONGEST_SAFETENSORS_HEADER} bytes, got a header of {length} bytes and {room} bytes in all. It "
            "is damaged or truncated; fetch it again."
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _check_header(path, _first_bytes(path))
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            _check_names(path, names)
            return {key: file.get_tensor(key) for key in names}, dict(file.metadata() or {})
    except WeightFileError:
        raise
    except Exception as error:  # of types that this torch lacks, its bindings raise errors of every kind
        raise _broken_safetensors(path, error) from error


def _check_names(path: Path, names: Collection[str]) -> None:
    """How many tensors there are, and how long their names are. Raises WeightFileError."""
    longest, letters = max(map(len, names), default=0), sum(map(len, names))
    if len(names) > MOST_TENSORS or longest > LONGEST_KEY or letters > MOST_LETTERS:
        raise WeightFileError(
            f"{path}: expected at most {MOST_TENSORS} tensors with names of at most {LONGEST_KEY} letters, "
            f"{MOST_LETTERS} in all, got {len(names)} with names of up to {longest} and {letters} in all. "
            "Take the published file."
        )


def _read_pickle(path: Path) -> object:
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        raise WeightFileError(
            f"{path}: expected a PyTorch pickle to be named {', '.join(PICKLE_SUFFIXES)}, got "
            f"{quoted(path.suffix)}. A pickle can carry code and must not pass for another format; rename it."
        )
    if torch.__version__ < (2, 6):
        raise WeightFileError(
            f"{path}: expected torch 2.6 or later, which opens PyTorch pickles safely, got "
            f"{torch.__version__}. Update torch, or take the .safetensors file."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=check_pickle(path))
    except UnsoundPickle as error:
        raise WeightFileError(f"{path}: expected {error}") from error
    except Exception as error:  # damaged bytes are executed as opcodes, which fail in any way
        raise WeightFileError(
            f"{path}: expected weights, got a damaged or truncated file, or a pickle of something else. "
            "Fetch it again."
        ) from error


def _flat(path: Path, root: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and scalars in nested containers, under their dotted paths."""
    # A stack instead of recursion, and each container only once: a hostile file may nest deeper than Python
    # recurses, contain itself, or refer to the same dict twice on each of many levels, which doubles the work
    # every time. Empty containers are exempt, since Python shares one empty tuple. Reversed, so that keys
    # leave the stack in the order of the file.
    state, metadata, seen = {}, {}, set()
    waiting = [("", {BARE_TENSOR: root} if isinstance(root, Tensor) else root)]
    while waiting:
        name, value = waiting.pop()
        if len(name) > LONGEST_KEY:
            _check_names(path, [name])
        if isinstance(value, Tensor) and name not in state:
            state[name] = value.detach()
        elif isinstance(value, dict | list | tuple) and (not value or id(value) not in seen):
            seen.add(id(value))
            waiting += reversed(list(_children(name, value)))
        elif isinstance(value, SCALARS):
            metadata[name] = str(value)
        else:
            raise WeightFileError(
                f"{path}: expected plain dicts with each tensor under a name of its own, got a "
                f"{type(value).__name__} under {quoted(name)}. It was not written as weights; take the "
                "published file."
            )
    return state, metadata


def _children(name: str, container: dict | list | tuple) -> Iterator[tuple[str, object]]:
    items = container.items() if isinstance(container, dict) else enumerate(container)
    return ((f"{name}.{key}" if name else str(key), value) for key, value in items)


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Only plain tensors whose bytes are really in the file: no sparse, quantized, meta or expanded ones."""
    if not state:
        raise WeightFileError(f"{path}: expected tensors, got none. Fetch the published file.")
    _check_names(path, state.keys())
    size = path.stat().st_size
    for key, tensor in state.items():
        # A header of a megabyte has room for half a million, each of which costs every operation.
        if tensor.ndim > MOST_DIMENSIONS:
            raise WeightFileError(
                f"{path}: expected {key} to have at most {MOST_DIMENSIONS} dimensions, got {tensor.ndim}. It "
                "is damaged; fetch it again."
            )
        # An expanded tensor (stride 0) can claim terabytes in a file of a few bytes, and fills the memory as
        # soon as anything copies it.
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.is_nested or tensor.nbytes > size:
            raise WeightFileError(
                f"{path}: expected {key} to be a plain tensor whose values all lie in the file of {size} "
                "bytes, got a sparse, quantized or expanded one. Save contiguous tensors."
            )
    total = sum(tensor.nbytes for tensor in state.values())
    if total > SHARED * size:
        raise WeightFileError(
            f"{path}: expected tensors whose values lie in the file of {size} bytes, got {total} bytes of "
            "them that overlap. Save contiguous tensors."
        )


def _apart(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Contiguous tensors, none of which shares its storage with another, as safetensors requires."""
    seen = set()
    for key, tensor in state.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        yield key, tensor.clone() if storage in seen else tensor
        seen.add(storage)
