"""Files that appear under their names only once they are complete, and checksums of files."""
from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 64_000_000  # of a file that is read as a whole, such as the manifest of a very large cache


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to instead of `path`; it is renamed to it when the block ends without an error."""
    # Beside the target, because a rename is atomic only within one file system; and one name per process, so
    # that two processes writing the same file do not write into each other's.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # already renamed, or in a folder that cannot be written
            unfinished.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears only when it is complete and survives a power cut. Raises OSError."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
        # Before the rename: a crash could otherwise leave the name on disk without the bytes.
        flush_file(unfinished)


def check_ordinary(path: Path) -> None:
    """Raise OSError for a pipe or a device: whoever opens one may wait for its other end forever."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not an ordinary file", str(path))


def read_small(path: Path, longest: int = MOST_BYTES) -> bytes:
    """The content of an ordinary file. Raises OSError, also for one of more than `longest` bytes."""
    check_ordinary(path)
    size = path.stat().st_size
    if size > longest:
        raise OSError(errno.EFBIG, f"it has {size} bytes, more than {longest}", str(path))
    return path.read_bytes()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits. Raises OSError, also for a pipe or a device."""
    check_ordinary(path)
    # One buffer for the whole file: weight files have gigabytes, and Python 3.10 has no hashlib.file_digest.
    digest, chunk = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digest.update(memoryview(chunk)[:count])
    return digest.hexdigest()


def flush_file(path: Path) -> None:
    """Write out the operating system's buffers, so that no manifest outlives the file that it names."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; does nothing on Windows."""
    # On POSIX a rename changes the folder, which has buffers of its own; Windows cannot open a folder.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
