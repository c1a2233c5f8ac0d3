"""One process at a time in a folder, for as long as it lives."""
from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .whole import check_ordinary

if os.name == "nt":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
ATTEMPTS = 5  # the holder before us may remove its file between our opening and our locking it


class InUseError(ValueError):
    """Another process is at work in a folder: names it, and what to do."""


class FolderLock:
    """Keeps other processes that ask for the same lock out of a folder until `release`.

    The system itself forgets the lock when its process ends, however that happens: a file that is left over
    refuses nobody. Where the system knows no locks (some network drives) or the folder cannot be written,
    nothing is locked: whoever writes there learns of it by the writing.

    Not by the package filelock: on a drive without locks it takes the file itself for one, which a crash
    leaves behind.

    Raises:
        InUseError: another process has the lock.
    """

    def __init__(self, folder: Path):
        self.path, self.file = folder / LOCK, None
        self.made_folder = not folder.exists()
        for _ in range(ATTEMPTS):
            try:
                file = opened(self.path)
            except OSError as error:
                in_its_place = os.path.lexists(folder) and not folder.is_dir()
                if isinstance(error, FileNotFoundError | FileExistsError) and not in_its_place:
                    continue  # the holder before us has removed the folder that it had made
                logging.debug("%s cannot be opened, so nothing is locked: %s", self.path, error)
                return
            if self.hold(file):
                return
        raise self.in_use()

    def in_use(self) -> InUseError:
        return InUseError(
            f"Expected no other process at work in {self.path.parent}, got one that is. Wait until it has "
            "ended, or use another name or folder."
        )

    def hold(self, file: BinaryIO) -> bool:
        """Lock an open file; False if it was removed meanwhile, so that others would not see the lock."""
        try:
            lock(file)
        except OSError as error:
            file.close()
            if error.errno in TAKEN:
                raise self.in_use() from error
            logging.debug("%s cannot be locked: %s", self.path, error)
            return True
        if not same_file(file, self.path):
            file.close()
            return False
        self.file = file
        return True

    def release(self) -> None:
        """Let others in, and remove the file, and the folder if it was made for the lock and is empty."""
        if self.file is None:
            return
        file, self.file = self.file, None
        # While it is still locked, where the system allows that: who opens it now notices that it is gone.
        with suppress(OSError):
            self.path.unlink()
        file.close()
        if os.name == "nt":
            with suppress(OSError):
                self.path.unlink()
        if self.made_folder:
            with suppress(OSError):
                self.path.parent.rmdir()


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder during the block. Raises InUseError if one is there."""
    held = FolderLock(folder)
    try:
        yield
    finally:
        held.release()


def opened(path: Path) -> BinaryIO:
    """The file of a lock, made if needed, with its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    check_ordinary(path)
    return open(path, "ab", buffering=0)


def lock(file: BinaryIO) -> None:
    """Lock an open file without waiting. Raises OSError."""
    if os.name == "nt":
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def same_file(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    if os.name == "nt":
        return True  # an open file cannot be removed there
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
