"""Files that appear under their name only when they are complete, and checksums of files."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to instead; when the block ends without an error, the file there takes its name."""
    # One name for each process, so that two that write the same file do not write into each other's.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # renamed by now, or in a folder that cannot be written
            unfinished.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears only when it is complete, and lasts. Raises OSError."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
        flush_file(unfinished)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest, chunk = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digest.update(memoryview(chunk)[:count])
    return digest.hexdigest()


def flush_file(path: Path) -> None:
    """Past the operating system's buffers, so that no manifest outlives the file that it names."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename last; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
