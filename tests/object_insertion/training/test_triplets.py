"""Folders of triplets: the published list, names that pair, and what cannot be used."""
from __future__ import annotations

import pytest
from PIL import Image

from pit.object_insertion.training.triplets import COLUMNS, describe_triplets, read_triplets
from tests.object_insertion.training.triplets import write_triplets

HEAD = "img_id,original_image,target_image,object_image\n"


def listed(folder, *lines, head=HEAD):
    (folder / "metadata.csv").write_text(head + "".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def test_pictures_pair_by_their_names(tmp_path):
    folder = write_triplets(tmp_path, 3)
    (folder / "object_image" / "1.png").unlink()
    (folder / "target_image" / "notes.txt").write_text("x")
    dataset = read_triplets(folder)
    assert [each.name for each in dataset.triplets] == ["0", "2"]
    assert dataset.triplets[1].scene == folder / "original_image" / "2.png"
    assert dataset.triplets[1].object == folder / "object_image" / "2.png"
    assert dataset.triplets[1].target == folder / "target_image" / "2.png"
    report = describe_triplets(dataset)
    assert "2 triplets" in report and "without the two others of its name (original_image/1.png" in report
    assert "notes.txt" in report


@pytest.mark.parametrize("train, prefix", [(True, ""), (True, "train/"), (False, "")])
def test_the_published_list_names_pictures_from_its_folder_or_the_one_above(tmp_path, train, prefix):
    root = tmp_path / "train" if train else tmp_path
    write_triplets(root, 2)
    names = [[f"{prefix}{COLUMNS[place]}/{n}.png" for place in (0, 2, 1)] for n in range(2)]
    listed(root, *(f"a{n},{','.join(files)}" for n, files in enumerate(names)))
    dataset = read_triplets(tmp_path)
    assert [each.name for each in dataset.triplets] == ["a0", "a1"] and not dataset.skipped
    assert dataset.triplets[0].target == root / "target_image" / "0.png"


def test_the_layout_of_the_other_published_script(tmp_path):
    (tmp_path / "7").mkdir()
    for kind in ("object", "target", "original"):
        Image.new("RGB", (8, 8)).save(tmp_path / "7" / f"{kind}_image_7.jpg")
    files = ",".join(f"7/{kind}_image_7.jpg" for kind in ("object", "target", "original"))
    listed(tmp_path, f"7,{files}", head="id,object_image,target_image,original_image\n")
    (triplet,) = read_triplets(tmp_path).triplets
    assert (triplet.name, triplet.scene.name) == ("7", "original_image_7.jpg")


@pytest.mark.parametrize("path", [
    "missing_file", "", "object_image/9.png", "../outside.png", "/etc/hostname", "a\0b", "x" * 5000,
])
def test_a_line_whose_pictures_are_not_in_the_folder_is_skipped(tmp_path, path):
    folder = tmp_path / "set"
    write_triplets(folder, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    good = "a,original_image/0.png,target_image/0.png,object_image/0.png"
    listed(folder, good, f"b,original_image/0.png,target_image/0.png,{path}")
    dataset = read_triplets(folder)
    assert [each.name for each in dataset.triplets] == ["a"]
    assert "skipped: 1, a line of the list" in describe_triplets(dataset)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    folder = write_triplets(tmp_path / "set", 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    listed(folder, "b,original_image/0.png,target_image/0.png,link.png")
    with pytest.raises(ValueError, match="not all in the folder"):
        read_triplets(folder)


def test_the_same_name_twice_is_told(tmp_path):
    line = "a,original_image/0.png,target_image/0.png,object_image/0.png"
    dataset = read_triplets(listed(write_triplets(tmp_path, 1), line, line))
    assert len(dataset.triplets) == 1 and "the same name as another line" in describe_triplets(dataset)


@pytest.mark.parametrize("content, message", [
    (b"img_id,original_image\n1,2\n", "columns original_image, object_image, target_image, got none of the"),
    (b"\xff\xfe\x00\xd8", "a table in UTF-8"),
    (b"", "got none of the name"),
    (HEAD.encode() + b'"' + b"x" * 200_000, "a table in UTF-8"),
])
def test_a_list_that_cannot_be_read_is_refused(tmp_path, content, message):
    write_triplets(tmp_path, 1)
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_triplets(tmp_path)


def test_no_folder_and_no_triplets_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no folder at"):
        read_triplets(tmp_path / "absent")
    with pytest.raises(ValueError, match="or three folders of these names in .*, got: nothing"):
        read_triplets(tmp_path)
