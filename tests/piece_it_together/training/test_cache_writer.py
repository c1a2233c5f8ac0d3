"""Writing a token cache: other settings are refused, and no interruption loses what was complete."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from dev import ROOT
from pit.files import lock, weights
from pit.files.records import Fingerprint
from pit.piece_it_together.training.cache import MANIFEST, REFERENCE, shard_name
from tests.piece_it_together.training.test_cache import (
    AUGMENTATION,
    VARIANTS,
    WIDTH,
    add,
    assert_holds,
    refused,
    sources,
    write,
    writer,
)
from tests.training.tiny import write_cache


@pytest.mark.parametrize("change, messages", [
    ({"encoder": Fingerprint("ViT-L", (4.0, -3.0, 12.0))}, ("another encoder", "vision", "ViT-L")),
    ({"adapter": Fingerprint("faces.bin", (1.0, 2.0, 2.0))}, ("another adapter", "adapter.bin", "faces.bin")),
    ({"augmentation": AUGMENTATION | {"seed": 1}}, ("seed 0", "now 1", "another folder")),
    ({"augmentation": {"seed": 0}}, ("rotation_degrees 30.0", "now None")),
    ({"variants": 3}, ("variants 2", "now 3")),
    ({"width": 4}, ("width 8", "now 4")),
])
def test_a_cache_of_other_models_or_settings_is_not_added_to(tmp_path, change, messages):
    write(tmp_path, range(2))
    before = (tmp_path / MANIFEST).read_bytes()
    with refused(*messages):
        writer(tmp_path, **change)
    assert (tmp_path / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("shapes, message", [
    (((16, WIDTH + 1), (VARIANTS, 16, WIDTH)), "the shapes"),
    (((16, WIDTH), (VARIANTS + 1, 16, WIDTH)), "the shapes"),
    (((16, WIDTH),), "1 parts"),
])
def test_tokens_of_another_shape_are_refused(tmp_path, shapes, message):
    with refused(message), writer(tmp_path) as cache:
        target, *parts = map(torch.zeros, shapes)
        cache.add(sources(0, parts=1), target, parts)


def test_empty_tokens_of_another_width_are_refused(tmp_path):
    with refused(r"\[1, 16, 8\]", r"\[1, 16, 9\]"):
        writer(tmp_path, empty=torch.zeros(1, 16, WIDTH + 1))


def test_another_number_of_references_is_refused(tmp_path):
    write(tmp_path, range(2), references=1)
    with refused("1 references"), writer(tmp_path) as cache:
        add(cache, 2, references=2)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_tokens_that_float16_cannot_hold_are_refused_and_the_rest_is_saved(tmp_path, value):
    with refused("concept 01", "NaN or infinite", "float32"), writer(tmp_path) as cache:
        add(cache, 0)
        cache.add(sources(1, parts=0), torch.full((16, WIDTH), value), [])
    with writer(tmp_path) as cache:
        add(cache, 0)
    assert_holds(tmp_path, (0,))


def test_a_cache_with_a_missing_shard_is_not_added_to(tmp_path):
    write(tmp_path, range(4))
    (tmp_path / shard_name(0)).unlink()
    with refused(shard_name(0), "got no file"):
        writer(tmp_path)


def test_what_was_complete_is_saved_when_something_stops_the_writing(tmp_path):
    with pytest.raises(KeyboardInterrupt), writer(tmp_path) as cache:
        add(cache, 0)
        add(cache, 1)
        raise KeyboardInterrupt
    assert_holds(tmp_path, (0, 1))
    write(tmp_path, (2,))
    assert_holds(tmp_path, (0, 1, 2))


def test_a_shard_that_no_manifest_names_is_overwritten(tmp_path):
    write(tmp_path, range(2))
    (tmp_path / shard_name(1)).write_bytes(b"half a shard of a process that was killed")
    assert_holds(tmp_path, range(2))
    write(tmp_path, (2,))
    assert_holds(tmp_path, range(3))


KILLED = """
import os, sys
from pathlib import Path
from tests.piece_it_together.training.test_cache import add, writer

def write_until(folder, replaces):
    replace = os.replace
    def killing(source, target):
        nonlocal replaces
        replaces -= 1
        if replaces == 0:
            os._exit(9)
        replace(source, target)
    os.replace = killing
    with writer(folder, shard_rows=10) as cache:
        for number in range(6):
            add(cache, number)

for replaces in sys.argv[2:]:
    if os.fork() == 0:
        write_until(Path(sys.argv[1], replaces), int(replaces))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 9
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the children are forked")
def test_a_process_killed_before_a_rename_loses_one_shard_at_most(tmp_path):
    """Each shard is 2 concepts; renames: reference, manifest, then shard and manifest by turns."""
    kept_after = {2: 0, 4: 0, 6: 2}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *map(str, kept_after)], cwd=ROOT, check=True)
    for renames, kept in kept_after.items():
        folder = tmp_path / str(renames)
        for leftover in folder.glob("*.unfinished"):
            os.utime(leftover, (0, 0))  # only those that have rested for long are removed
        if renames > 2:
            assert len(writer(folder).known) == kept
        write(folder, range(kept, 6), shard_rows=10)
        assert_holds(folder, range(6))
        assert not list(folder.glob("*.unfinished"))


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path, range(2))
    with refused(shard_name(1), "No space left on device", "free some space"), writer(tmp_path) as cache:
        monkeypatch.setattr(weights, "save_file", full)
        add(cache, 2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, REFERENCE, shard_name(0)]
    write(tmp_path, (2,))
    assert_holds(tmp_path, range(3))


def test_a_disk_that_is_full_before_the_manifest_leaves_the_old_one(tmp_path, monkeypatch):
    def full(source, target):
        if Path(target).name == MANIFEST:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(source, target)

    replace_file = os.replace
    write(tmp_path, range(2))
    with refused(MANIFEST, "No space left on device"), writer(tmp_path) as cache:
        monkeypatch.setattr(os, "replace", full)
        add(cache, 2)
    monkeypatch.undo()
    assert_holds(tmp_path, range(2))
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the permissions of POSIX")
def test_a_read_only_folder_is_noticed_before_anything_is_encoded():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # root may write everywhere
            with refused(REFERENCE, "could not be written", "[Pp]ermission"):
                writer(Path(folder))
        finally:
            os.seteuid(user)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "cache").touch()
    with refused("cache", "could not be written"):
        writer(tmp_path / "cache")


def test_two_processes_that_write_one_cache_are_noticed_where_nothing_is_locked(tmp_path, monkeypatch):
    """As on a network drive without locks."""
    monkeypatch.setattr(lock, "lock", lambda file: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    with refused("another process", "one process at a time"), writer(tmp_path) as first:
        with writer(tmp_path) as second:
            add(second, 0)
        add(first, 1)
        first.flush()
    assert_holds(tmp_path, (0,))


def test_a_manifest_replaces_the_old_one_only_when_all_that_it_names_is_on_the_disk(tmp_path, monkeypatch):
    on_disk, checked, replace_file, sync = set(), [], os.replace, os.fsync

    def watched_sync(file: int) -> None:
        sync(file)
        on_disk.add(os.fstat(file).st_ino)

    def watched_replace(source, target) -> None:
        if Path(target).name == MANIFEST:
            needed = [Path(source), *tmp_path.glob("*.safetensors")]
            assert {path.stat().st_ino for path in needed} <= on_disk
            checked.append(len(needed))
            on_disk.remove(needed[0].stat().st_ino)  # a later manifest may get the number of an earlier one
        replace_file(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write(tmp_path, range(6))
    assert checked == [2, 3, 4]  # manifest and reference at first, and one shard more each time


def test_the_same_concepts_give_the_same_bytes(tmp_path):
    """A training keeps the fingerprint of its cache: one that was encoded again must be the same to it."""
    found = {write_cache(tmp_path / str(number)).fingerprint for number in range(6)}
    assert len(found) == 1
