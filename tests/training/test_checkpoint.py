"""Checkpoints are complete or absent."""
from __future__ import annotations

import errno
import json

import pytest
import torch

from pit.files.weights import WeightFileError
from pit.training import checkpoint
from pit.training.checkpoint import newest_checkpoint, write_checkpoint


def write(folder, step, keep=3):
    states = {"model": {"a": torch.full((4,), float(step))}, "optimizer": {"0.step": torch.tensor(1.0)}}
    return write_checkpoint(folder, step, states, {"losses": 2}, keep)


def test_a_checkpoint_comes_back(tmp_path):
    write(tmp_path, 10)
    found, passed_over = newest_checkpoint(tmp_path)
    assert found.step == 10 and found.notes == {"losses": 2} and not passed_over
    assert torch.equal(found.load("model")["a"], torch.full((4,), 10.0))


def test_the_last_k_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000003", "step_00000010"]


def test_no_weight_file_is_left_where_loaders_list_them(tmp_path):
    folder = write(tmp_path, 1)
    assert not {path.suffix for path in folder.iterdir()} & {".safetensors", ".ckpt", ".pt", ".bin", ".pth"}


def spoil_cut(folder):
    path = folder / "model.tensors"
    path.write_bytes(path.read_bytes()[:-3])


def spoil_bit(folder):
    path = folder / "model.tensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def spoil_manifest(folder):
    (folder / "manifest.json").write_text('{"step": 3')


def spoil_by_removal(folder):
    (folder / "optimizer.tensors").unlink()


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_bit, spoil_manifest, spoil_by_removal])
def test_a_damaged_checkpoint_is_skipped_with_its_reason(tmp_path, spoil):
    write(tmp_path, 2)
    spoil(write(tmp_path, 3))
    found, passed_over = newest_checkpoint(tmp_path)
    assert found.step == 2
    assert len(passed_over) == 1 and passed_over[0].startswith("step_00000003: ")


@pytest.mark.parametrize("content", [
    "[]", "3", "null", "{}",
    '{"step": "3", "notes": {}, "files": {}}', '{"step": 3, "notes": [], "files": {}}',
    '{"step": 3, "notes": {}, "files": []}', '{"step": 3, "notes": {}, "files": {"a": 1}}', "[" * 9999,
    '{"step": 3, "notes": {}, "files": {"../x": {"bytes": 1, "sha256": ""}}}', '{"step": ' + "9" * 9999 + "}",
    '{"step": 3, "notes": {}, "files": {"' + "x" * 9999 + '": {"bytes": 1, "sha256": ""}}}',
])
def test_a_manifest_of_other_things_is_passed_over_in_a_sentence(tmp_path, content):
    write(tmp_path, 2)
    (write(tmp_path, 3) / "manifest.json").write_text(content)
    found, passed_over = newest_checkpoint(tmp_path)
    assert found.step == 2 and len(passed_over) == 1 and len(passed_over[0]) <= 1000


def test_what_a_kill_left_half_written_does_not_count(tmp_path):
    write(tmp_path, 2)
    half = tmp_path / "step_00000003.tmp"
    half.mkdir()
    (half / "model.tensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path)[0].step == 2
    write(tmp_path, 3)
    assert newest_checkpoint(tmp_path)[0].step == 3 and not half.exists()


@pytest.mark.parametrize("failing", ["write_state", "write_whole"])
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch, failing):
    write(tmp_path, 2)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, failing, full)
    with pytest.raises(WeightFileError, match="step_00000003 could not be written: .*No space left"):
        write(tmp_path, 3)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]
    assert newest_checkpoint(tmp_path)[0].step == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(WeightFileError, match="could not be written"):
        write(tmp_path / "checkpoints", 1)


def test_reading_a_checkpoint_writes_nothing(tmp_path, monkeypatch):
    """So that a run in a read-only folder can be resumed."""
    write(tmp_path, 4)
    monkeypatch.setattr("os.fsync", lambda handle: pytest.fail("something was written"))
    assert newest_checkpoint(tmp_path)[0].step == 4


def test_an_absent_folder_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "none") == (None, [])


def test_a_step_written_again_replaces_itself(tmp_path):
    folder = write(tmp_path, 5)
    spoil_bit(folder)
    write(tmp_path, 5)
    assert newest_checkpoint(tmp_path)[0].step == 5
    assert json.loads((folder / "manifest.json").read_text())["step"] == 5
