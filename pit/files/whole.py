"""Files that appear under their names only once they are complete, and checksums of files."""
from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 64_000_000  # of a file that is read as a whole, such as the manifest of a very large cache
# What a killed process leaves: our own unfinished files, and those of safetensors, which it names like this.
LEFTOVER = re.compile(r".+\.\d+\.unfinished|\.tmp[0-9A-Za-z]{6}")
LEFTOVER_SECONDS = 3600  # since the last write: no process at work lets a file rest for that long
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Windows' own numbers for a full disk, which safetensors gives; Python translates them by itself.
WINDOWS_FULL = {39: errno.ENOSPC, 112: errno.ENOSPC} if os.name == "nt" else {}


class NoSpaceError(OSError):
    """A file that does not fit: names it, the bytes it needs and those that are free, and what to do."""

    def __str__(self) -> str:
        return self.strerror


def no_space(path: Path, needed: int, code: int = errno.ENOSPC) -> NoSpaceError:
    """The error for a file of `needed` bytes that did not fit."""
    free = "an unknown number of"
    with suppress(OSError):
        free = f"{shutil.disk_usage(path.parent).free:,}"
    # A file can also be stopped by a quota or a limit on its size, with much of the drive free: the reason
    # that the system gave is told with the numbers.
    return NoSpaceError(
        code, f"Expected room for the {needed:,} bytes of {path}, got an error: {os.strerror(code)} ({free} "
        "bytes are free there). Free some space, then run the same again."
    )


def not_written(path: Path, error: BaseException) -> str:
    """What to tell of a file or folder that could not be written."""
    # The error of a full disk begins with the path and ends with what to do.
    return str(error) if isinstance(error, NoSpaceError) else f"{path} could not be written: {error}"


def error_number(error: BaseException) -> int | None:
    """The system's number of an error, also of one that safetensors has turned into text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return None if found is None else WINDOWS_FULL.get(int(found[1]), int(found[1]))


@contextmanager
def replacing(path: Path, needed: int = 0) -> Iterator[Path]:
    """A path to write to instead of `path`; it is renamed to it when the block ends without an error.

    Before and after the rename everything is flushed, so that a power cut leaves the old file or the new one.

    Args:
        needed: the bytes that will be written, for the message about a full disk.
    Raises:
        NoSpaceError: the disk is full; other errors stay as they are.
    """
    # Beside the target, because a rename is atomic only within one file system; and a new name each time, so
    # that two writers of one file do not write into each other's: in two containers, both may be process 1.
    unfinished = path.with_name(f"{path.name}.{secrets.randbelow(10**9)}.unfinished")
    try:
        yield unfinished
        flush_file(unfinished)
        os.replace(unfinished, path)
    except Exception as error:
        code = error_number(error)
        if code in NO_SPACE and not isinstance(error, NoSpaceError):
            raise no_space(path, needed, code) from error
        raise
    finally:
        with suppress(OSError):  # already renamed, or in a folder that cannot be written
            unfinished.unlink()
    flush_folder(path.parent)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file that appears only when it is complete and survives a power cut. Raises OSError."""
    with replacing(path, len(content)) as unfinished:
        unfinished.write_bytes(content)


def clean_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left unfinished in a folder, never what one is writing."""
    oldest = time.time() - LEFTOVER_SECONDS
    # The cleaning is a courtesy: a folder that cannot be listed, or a file that another process removes at
    # the same time, must not stop the save that follows.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if LEFTOVER.fullmatch(entry.name):
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < oldest:
                        os.unlink(entry.path)


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


def read_beginning(path: Path, count: int = 1_000_000) -> bytes:
    """The first bytes of an ordinary file. Raises OSError, also for a pipe or a device."""
    check_ordinary(path)
    with path.open("rb") as file:
        return file.read(count)


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
    """Make a rename survive a power cut, where the system can; does nothing on Windows."""
    # On POSIX a rename changes the folder, which has buffers of its own; Windows cannot open a folder. Some
    # network drives refuse to flush one: the file is in its place all the same.
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
