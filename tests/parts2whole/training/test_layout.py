"""The published layout of the data set: what is read, and what cannot be used and is named."""
from __future__ import annotations

import json

import pytest

from pit.parts2whole.training.layout import describe_parts_dataset, read_parts_dataset
from tests.parts2whole.training.people import lines_of, write_lines, write_people


def test_examples_have_their_files(tmp_path):
    folder = write_people(tmp_path / "people", 3, held_out=2)
    dataset = read_parts_dataset(folder)
    assert [len(each.parts) for each in dataset.examples] == [1, 2, 3] and len(dataset.held_out) == 2
    last = dataset.examples[2]
    assert last.caption == "person 2" and last.target == folder / "images" / "2.png"
    assert last.pose == folder / "densepose" / "2.png"
    assert [part.label for part in last.parts] == ["face", "shoes", "upper body clothes"]
    assert last.parts[1].mask == folder / "shoes" / "2_mask.png"
    assert len({each.name for each in (*dataset.examples, *dataset.held_out)}) == 5
    assert describe_parts_dataset(dataset) == f"{folder}: 3 examples, 2 held out"


def test_masks_may_be_missing_paths_may_be_of_windows_and_the_list_may_begin_with_a_mark(tmp_path):
    folder = write_people(tmp_path / "people", 2)
    lines = lines_of(folder)
    del lines[0]["mask"]
    lines[1]["target"] = "images\\1.png"
    text = "\ufeff" + "\r\n".join(json.dumps(line) for line in lines) + "\r\n\r\n"
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    dataset = read_parts_dataset(folder)
    assert len(dataset.examples) == 2 and not dataset.skipped
    assert dataset.examples[0].parts[0].mask is None and dataset.examples[1].target.name == "1.png"


def test_another_kind_of_pose_is_a_choice(tmp_path):
    folder = write_people(tmp_path / "people", 2)
    lines = lines_of(folder)
    lines[0]["structure"]["openpose"] = "images/0.png"
    write_lines(folder, lines)
    found = read_parts_dataset(folder, "openpose")
    assert [each.pose.name for each in found.examples] == ["0.png"]
    assert found.skipped[0].why == "a line without a pose of the kind 'openpose'"


def changed(line, **changes):
    return line | changes


FAULTS = {
    "no json": (lambda line: "{", "no JSON"),
    "a list": (lambda line: [1], "no JSON object"),
    "deep": (lambda line: "[" * 100 + "]" * 100, "no JSON"),
    "no caption": (lambda line: changed(line, caption=None), "without a caption"),
    "no target": (lambda line: changed(line, target="images/none.png"), "not all in the folder"),
    "no path": (lambda line: changed(line, target=["images/1.png"]), "not all in the folder"),
    "null": (lambda line: changed(line, target="images/1\0.png"), "not all in the folder"),
    "long": (lambda line: changed(line, target="x" * 5000), "not all in the folder"),
    "elsewhere": (lambda line: changed(line, target="../secret.png"), "not all in the folder"),
    "absolute": (lambda line: changed(line, target="/etc/hostname"), "not all in the folder"),
    "a folder": (lambda line: changed(line, target="images"), "not all in the folder"),
    "no pose": (lambda line: changed(line, structure={}), "without a pose of the kind 'densepose'"),
    "pose": (lambda line: changed(line, structure="densepose/1.png"), "structure is no list of paths"),
    "no reference": (lambda line: changed(line, appearance={}), "not 1 to 6 references"),
    "seven": (
        lambda line: changed(line, appearance={str(n): "images/1.png" for n in range(7)}), "not 1 to 6",
    ),
    "no label": (lambda line: changed(line, appearance={" ": "images/1.png"}), "appearance is no list"),
    "mask": (lambda line: changed(line, mask={"face": "face/none.png"}), "not all in the folder"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_lines_that_cannot_be_used_are_named_and_left_out(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(b"")
    folder = write_people(tmp_path / "people", 3)
    fault, why = FAULTS[name]
    lines = lines_of(folder)
    lines[1] = fault(lines[1])
    write_lines(folder, lines)
    dataset = read_parts_dataset(folder)
    assert [each.caption for each in dataset.examples] == ["person 0", "person 2"]
    [skipped] = dataset.skipped
    assert why in skipped.why and skipped.path.name == "train.jsonl, line 2"


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    folder = write_people(tmp_path / "people", 2)
    outside = tmp_path / "outside.png"
    (folder / "images" / "0.png").rename(outside)
    (folder / "images" / "0.png").symlink_to(outside)
    dataset = read_parts_dataset(folder)
    assert len(dataset.examples) == 1 and "not all in the folder" in dataset.skipped[0].why


def test_what_holds_no_examples_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a folder with train.jsonl .* got no folder"):
        read_parts_dataset(tmp_path / "none")
    with pytest.raises(ValueError, match="got: no such list"):
        read_parts_dataset(tmp_path)
    write_lines(tmp_path, ["{}", "x"])
    with pytest.raises(ValueError, match="a line that is no JSON .*; .*a line without a caption"):
        read_parts_dataset(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ValueError, match="expected a list in UTF-8"):
        read_parts_dataset(tmp_path)
