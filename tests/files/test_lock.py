"""One process at a time, told in a sentence, and no file that refuses the next start."""
from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pit.demo.datasets import write_creature_dataset
from pit.files import lock as lock_module
from pit.files.lock import LOCK, FolderLock, InUseError, only_process
from tests.training.tiny import write_cache

ROOT = Path(__file__).parents[2]
HOLDER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from pit.files.lock import FolderLock\n"
    "held = FolderLock(Path(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_told_and_the_first_is_left_alone(tmp_path, holder):
    with pytest.raises(InUseError, match="Expected no other process at work in .*Wait until it has ended"):
        FolderLock(tmp_path)
    assert holder.poll() is None
    with pytest.raises(InUseError):  # the refused one has not let others in
        FolderLock(tmp_path)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_dies_refuses_nobody(tmp_path, holder, end):
    holder.send_signal(end)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with only_process(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_after_the_block_nothing_is_left(tmp_path):
    with only_process(tmp_path / "new"):
        assert (tmp_path / "new" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with only_process(tmp_path / "new"):
        (tmp_path / "new" / "file").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_an_error_in_the_block_lets_others_in(tmp_path):
    with pytest.raises(KeyboardInterrupt), only_process(tmp_path):
        raise KeyboardInterrupt
    with only_process(tmp_path):
        pass


def test_a_file_that_its_holder_removes_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Else the one would lock what is gone, and another the file that was made after it."""
    real, removed = lock_module.lock, []

    def lock(file):
        if not removed:
            removed.append(True)
            (tmp_path / LOCK).unlink()
        real(file)

    monkeypatch.setattr(lock_module, "lock", lock)
    held = FolderLock(tmp_path)
    assert held.file is not None and (tmp_path / LOCK).exists()
    with pytest.raises(InUseError):
        FolderLock(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_drive_without_locks_stops_nobody(tmp_path, monkeypatch, code):
    def fails(file):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_module, "lock", fails)
    with only_process(tmp_path), only_process(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_for_the_writer_to_tell(tmp_path, monkeypatch, code):
    def fails(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_module, "opened", fails)
    with only_process(tmp_path):
        pass


def test_a_cache_and_a_dataset_have_one_writer_at_a_time(tmp_path, holder):
    with pytest.raises(InUseError):
        write_cache(tmp_path)
    with pytest.raises(InUseError):
        write_creature_dataset(tmp_path, 1, 0, 0.0, lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    holder.communicate()
    write_cache(tmp_path)
    assert not (tmp_path / LOCK).exists()
