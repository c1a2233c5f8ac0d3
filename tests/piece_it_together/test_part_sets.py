"""Folders with a subfolder for each set of parts: what counts as a set, and what its pictures become."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pit.demo.examples import PART_SETS
from pit.files.pictures import PictureError
from pit.piece_it_together.part_sets import (
    LONGEST_SIDE,
    MOST_PARTS,
    MOST_PICTURES,
    PartSet,
    open_parts,
    read_part_sets,
    some_sets,
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def paint(path: Path, size: tuple[int, int], colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names_of(folder: Path) -> dict[str, list[str]]:
    sets, _ = read_part_sets(folder)
    return {each.name: [path.name for path in each.pictures] for each in sets}


def test_each_subfolder_is_a_set_in_the_order_in_which_people_count(tmp_path):
    touch(tmp_path, "10/b.png", "2/10.png", "2/9.jpg", "2/1.webp", "10/a.jpeg")
    assert list(names_of(tmp_path).items()) == [
        ("2", ["1.webp", "9.jpg", "10.png"]), ("10", ["a.jpeg", "b.png"]),
    ]


def test_what_is_no_set_is_skipped_with_its_reason(tmp_path):
    touch(tmp_path, "good/1.png", "good/notes.txt", "GOOD/2.png", "loose.png", "empty/notes.txt",
          ".hidden/1.png", "good/.hidden.png", "a\\b/1.png", "c:/1.png")
    touch(tmp_path / "many", *(f"{number}.png" for number in range(MOST_PARTS + 1)))
    sets, skipped = read_part_sets(tmp_path)
    assert [(each.name, len(each.pictures)) for each in sets] == [("GOOD", 1)]
    reasons = {each.path.relative_to(tmp_path).as_posix(): each.why for each in skipped}
    assert reasons.pop("good/notes.txt").startswith("not one of") is True
    assert reasons.pop("empty/notes.txt").startswith("not one of") is True
    assert reasons == {
        "loose.png": "outside the subfolders", "empty": "a subfolder without pictures",
        "good": "the same name as another", "many": "more than 64 pictures in a set",
        "a\\b": "a name that leads to another folder", "c:": "a name that leads to another folder",
    }


@pytest.mark.parametrize("name", ["con", "ends.", "co:lon", "n" * 200])
def test_a_name_can_begin_a_file_name_on_every_system(tmp_path, name):
    touch(tmp_path, f"{name}/1.png")
    (found,) = names_of(tmp_path)
    assert found != name and len(found) <= 100 and ":" not in found and not found.endswith(".")


def test_a_folder_without_sets_says_how_it_should_look(tmp_path):
    touch(tmp_path, "1.png")
    with pytest.raises(ValueError, match="Expected a subfolder with pictures for each set in .*, got none"):
        read_part_sets(tmp_path)


def sets_of(count: int, pictures: int = 1) -> list[PartSet]:
    return [PartSet(str(number), (Path("1.png"),) * pictures) for number in range(1, count + 1)]


@pytest.mark.parametrize(("first", "most", "names"), [
    (1, 100, ["1", "2", "3", "4", "5"]), (2, 2, ["2", "3"]), (5, 100, ["5"]),
])
def test_some_of_the_sets_are_chosen(first, most, names):
    assert [each.name for each in some_sets(sets_of(5), first, most)] == names


def test_a_first_set_beyond_the_last_and_too_many_pictures_are_refused():
    with pytest.raises(ValueError, match="first to be at most 5, the number of sets, got 6"):
        some_sets(sets_of(5), 6, 100)
    full = MOST_PICTURES // 50
    assert len(some_sets(sets_of(full, 50), 1, full)) == full
    with pytest.raises(ValueError, match=r"at most 500 pictures at once, got 550 in 11 sets\. Lower most"):
        some_sets(sets_of(full + 1, 50), 1, full + 1)


def test_pictures_of_one_size_stay_as_they_are(tmp_path):
    paths = [paint(tmp_path / f"{number}.png", (30, 20), colour) for number, colour in
             enumerate(("red", "blue"))]
    opened = open_parts(paths)
    assert [each.size for each in opened] == [(30, 20)] * 2
    assert opened[1].getpixel((0, 0)) == (0, 0, 255)


def test_others_are_scaled_to_one_longest_side_in_a_white_square(tmp_path):
    tall, wide = paint(tmp_path / "tall.png", (20, 80)), paint(tmp_path / "wide.png", (40, 20))
    for picture, box in zip(open_parts([tall, wide]), ([30, 0, 20, 80], [0, 20, 80, 40]), strict=True):
        assert picture.size == (80, 80) and picture.getpixel((0, 0)) in ((255, 255, 255), (255, 0, 0))
        rows, columns = np.nonzero(np.asarray(picture)[..., 1] < 128)
        assert [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] == box


def test_large_pictures_are_scaled_down_and_a_line_keeps_a_pixel(tmp_path):
    large, line = paint(tmp_path / "large.png", (3000, 1500)), paint(tmp_path / "line.png", (2000, 1))
    (alone,) = open_parts([large])
    assert alone.size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert [each.size for each in open_parts([large, line])] == [(LONGEST_SIDE, LONGEST_SIDE)] * 2


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    good = paint(tmp_path / "good.png", (9, 9))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match="bad.png"):
        open_parts([good, tmp_path / "bad.png"])


def test_the_examples_of_the_pack_are_sets_of_three():
    sets, skipped = read_part_sets(PART_SETS)
    assert len(sets) == 4 and skipped == []
    assert [len(open_parts(each.pictures)) for each in sets] == [3] * 4
