"""Files are complete or absent: on a full disk, after a kill, and beside other processes."""
from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from pit.demo.datasets import write_creature_dataset, write_scene_dataset, write_sheet_dataset
from pit.files import whole
from pit.files.pictures import save_picture
from pit.files.weights import WeightFileError, save_states, write_state
from pit.files.whole import LEFTOVER_SECONDS, NoSpaceError, clean_leftovers, write_whole
from pit.training.checkpoint import newest_checkpoint, write_checkpoint
from pit.training.sample_cache import models_folder, write_sample
from tests.training.tiny import write_cache

ROOT = Path(__file__).parents[2]
LARGE = {"a": torch.arange(50_000, dtype=torch.float32)}


def checkpoint(folder: Path) -> None:
    write_checkpoint(folder, 3, {"model": LARGE}, {}, keep=2)


# Everything that the pack writes, by the function that writes it to a folder.
WRITERS = {
    "bytes": lambda folder: write_whole(folder / "a.json", bytes(200_000)),
    "weights": lambda folder: write_state(folder / "a.safetensors", LARGE, {}),
    "states": lambda folder: save_states(folder / "a.ckpt", LARGE),
    "picture": lambda folder: save_picture(folder / "a.png", Image.effect_noise((300, 300), 90)),
    "checkpoint": checkpoint,
    "sample": lambda folder: write_sample(folder / "a.safetensors", LARGE),
    "token cache": lambda folder: write_cache(folder / "cache"),
    "models of samples": lambda folder: models_folder(folder, {"VAE": "x" * 50_000}),
    "creatures": lambda folder: write_creature_dataset(folder, 1, 0, 0.0, lambda *_: None),
    "scenes": lambda folder: write_scene_dataset(folder, 1, 0),
    "sheets": lambda folder: write_sheet_dataset(folder, 1, 0),
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def limited(folder: Path, most: int) -> dict[str, str]:
    """What each writer raises in a process whose files can have no more than so many bytes."""
    script = (
        "import json, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.files.test_whole import WRITERS\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder, most, told = Path(sys.argv[1]), int(sys.argv[2]), {}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "for name, write in WRITERS.items():\n"
        "    (folder / name).mkdir()\n"
        "    try:\n"
        "        write(folder / name)\n"
        "    except Exception as error:\n"
        "        told[name] = str(error)\n"
        "print(json.dumps(told))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(most)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("most", [0, 700])
def test_a_file_that_does_not_fit_leaves_no_part_of_it(tmp_path, most):
    told = limited(tmp_path, most)
    assert told.keys() == WRITERS.keys()
    for name, text in told.items():
        assert "Expected room for the" in text and str(tmp_path / name) in text, text
        assert text.endswith("Free some space, then run the same again.") or name == "token cache", text
        assert len(text) < 1000
    written = files(tmp_path)
    # Small files of the same writer may have fitted; what is there is whole.
    assert not any("unfinished" in file or ".tmp" in file or not content for file, content in written.items())
    assert all(len(content) <= most for content in written.values())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_while_flushing_leaves_no_file(tmp_path, monkeypatch, name, code):
    def full(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OSError, ValueError), match="Expected room for the [1-9]") as raised:
        WRITERS[name](tmp_path)
    assert os.strerror(code) in str(raised.value)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", ["bytes", "weights", "states", "picture"])
def test_the_older_file_of_the_name_stays_as_it_was(tmp_path, monkeypatch, name):
    WRITERS[name](tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises((OSError, WeightFileError)):
        WRITERS[name](tmp_path)
    assert files(tmp_path) == before


def test_the_message_names_path_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "flush_file", lambda path: (_ for _ in ()).throw(OSError(errno.ENOSPC, "")))
    with pytest.raises(NoSpaceError) as raised:
        write_whole(tmp_path / "a.json", bytes(12_345))
    assert str(raised.value).startswith(f"Expected room for the 12,345 bytes of {tmp_path / 'a.json'}, got")
    assert raised.value.errno == errno.ENOSPC


def test_two_writers_of_one_number_do_not_meet(tmp_path, monkeypatch):
    """Two containers that share a folder may each be process 1."""
    monkeypatch.setattr(whole.os, "getpid", lambda: 1)
    with whole.replacing(tmp_path / "name") as first:
        first.write_bytes(b"the first")
        write_whole(tmp_path / "name", b"the second")
        assert (tmp_path / "name").read_bytes() == b"the second"
    assert (tmp_path / "name").read_bytes() == b"the first"
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


def test_another_error_keeps_its_own_words(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a.json", b"1")


def test_file_and_folder_are_flushed_around_the_rename(tmp_path, monkeypatch):
    done = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        done.append("folder" if Path(f"/proc/self/fd/{handle}").resolve().is_dir() else "file")
        real_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *given: done.append("rename") or real_replace(*given))
    write_whole(tmp_path / "a.json", b"1")
    assert done == ["file", "rename", "folder"]


def test_a_drive_that_refuses_to_flush_folders_is_written_all_the_same(tmp_path, monkeypatch):
    real = os.fsync

    def refuses(handle):
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", refuses)
    write_whole(tmp_path / "a.json", b"1")
    assert (tmp_path / "a.json").read_bytes() == b"1"


LEFTOVERS = ("a.safetensors.123.unfinished", "b.json.9.unfinished", ".tmpRKYfG5")
OTHERS = ("a.safetensors", "mine.unfinished", "notes.tmp", ".tmpRKYfG5.txt", ".tmp", ".tmpfolders")


def aged(path: Path) -> None:
    old = time.time() - LEFTOVER_SECONDS - 1
    os.utime(path, (old, old))


@pytest.mark.parametrize("save", ["weights", "states", "token cache"])
def test_the_next_save_removes_old_leftovers_and_nothing_else(tmp_path, save):
    folder = tmp_path / "cache" if save == "token cache" else tmp_path
    folder.mkdir(exist_ok=True)
    for name in (*LEFTOVERS, *OTHERS):
        (folder / name).write_bytes(b"half")
        aged(folder / name)
    fresh = folder / "c.safetensors.77.unfinished"
    fresh.write_bytes(b"another process is at it")
    WRITERS[save](tmp_path)
    left = {path.name for path in folder.iterdir()}
    assert not left & set(LEFTOVERS) and left >= {*OTHERS, fresh.name}


def test_cleaning_takes_no_folder_and_follows_no_link(tmp_path):
    (tmp_path / "a.1.unfinished").mkdir()
    target = tmp_path / "precious"
    target.write_bytes(b"1")
    (tmp_path / "b.1.unfinished").symlink_to(target)
    aged(tmp_path / "a.1.unfinished")
    aged(target)
    clean_leftovers(tmp_path)
    assert target.exists() and (tmp_path / "a.1.unfinished").is_dir()
    clean_leftovers(tmp_path / "none")


def test_half_written_checkpoints_are_removed_by_age(tmp_path):
    for step in (1, 2):
        (tmp_path / f"step_{step:08d}.tmp").mkdir()
    aged(tmp_path / "step_00000001.tmp")
    checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000002.tmp", "step_00000003"]
    assert newest_checkpoint(tmp_path)[0].step == 3
