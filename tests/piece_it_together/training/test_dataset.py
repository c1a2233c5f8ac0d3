"""Which pictures of a folder belong together: as the published loader has it, and beyond what it can read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pit.files.pictures import PictureError, open_picture
from pit.piece_it_together.training.dataset import Dataset, dataset_sheet, describe, read_dataset
from tests.golden import Golden

USED = ["set/1_2.jpg", "set/1_2_0.jpg", "set/1_2_1.jpg", "set/3_4.jpg", "set/3_4_0.jpg", "other/5_6.jpg",
        "other/5_6_0.jpg"]
SKIPPED = {
    "set/7_8.jpg": "a target without parts", "set/image_name.png": "a target without parts",
    "set/9_10.jpg": "a target without parts", "other/11_12.jpg": "a target without parts",
    "set/lost_x_0.jpg": "a part without its target", "top_level.jpg": "outside the sub-folders",
    "set/plain.jpg": "neither A_B (a target) nor A_B_0 (a part)",
    "other/a_b_c_3.jpg": "neither A_B (a target) nor A_B_0 (a part)",
}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paint(path: Path, colour: str = "red", size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def found(folder: Path) -> dict[str, list[str]]:
    return {each.name: [path.name for path in each.parts] for each in read_dataset(folder).concepts}


def skipped(folder: Path) -> dict[str, str]:
    return {relative(each.path, folder): each.why for each in read_dataset(folder).skipped}


def write_golden(golden: Golden, folder: Path) -> tuple[Dataset, dict]:
    layout = golden.facts("pit_dataset_layout")
    return read_dataset(touch(folder / layout["root_name"], *layout["files"])), layout


def as_published(dataset: Dataset) -> dict[str, list[str]]:
    """Parts by target, without what the published loader does not see: all but .jpg."""
    parts = {
        relative(each.target, dataset.folder): [relative(path, dataset.folder) for path in each.parts]
        for each in dataset.concepts
    }
    parts = {target: [path for path in paths if path.endswith(".jpg")] for target, paths in parts.items()}
    return {target: sorted(paths) for target, paths in parts.items() if target.endswith(".jpg") and paths}


def test_concepts_are_those_of_the_published_loader(golden, tmp_path):
    dataset, layout = write_golden(golden, tmp_path)
    theirs = layout["use_ref_False"]["parts_of"]
    assert dataset.layout == "published"
    assert as_published(dataset) == {target: sorted(parts) for target, parts in theirs.items() if parts}


def test_targets_that_the_published_loader_spoils_are_skipped_and_no_file_is_lost(golden, tmp_path):
    dataset, layout = write_golden(golden, tmp_path)
    reasons = {relative(each.path, dataset.folder): each.why for each in dataset.skipped}
    lonely = {name for name, why in reasons.items() if why == "a target without parts"}
    theirs = layout["use_ref_False"]["parts_of"]
    assert {name for name in lonely if name.endswith(".jpg")} == {
        target for target, parts in theirs.items() if not parts
    }
    used = [path for each in dataset.concepts for path in (each.target, *each.parts)]
    assert sorted([*(relative(path, dataset.folder) for path in used), *reasons]) == sorted(layout["files"])


@pytest.fixture
def published(tmp_path) -> Path:
    return touch(tmp_path / "my_data_set", *USED, *SKIPPED)


def test_concepts_have_a_name_and_a_group(published):
    concepts = read_dataset(published).concepts
    assert [(each.name, each.group) for each in concepts] == [
        ("other/5_6", "other"), ("set/1_2", "set"), ("set/3_4", "set"),
    ]
    assert found(published) == {
        "other/5_6": ["5_6_0.jpg"], "set/1_2": ["1_2_0.jpg", "1_2_1.jpg"], "set/3_4": ["3_4_0.jpg"],
    }


def test_what_is_not_used_is_named_with_the_reason(published):
    assert skipped(published) == SKIPPED


def test_other_picture_files_count_as_published_ones(tmp_path):
    touch(tmp_path, "set/a_b.png", "set/a_b_0.webp", "set/a_b_1.JPEG", "set/a_b.txt")
    assert found(tmp_path) == {"set/a_b": ["a_b_0.webp", "a_b_1.JPEG"]}
    assert skipped(tmp_path) == {"set/a_b.txt": "not one of .jpg, .jpeg, .png, .webp"}


def test_the_layout_of_two_folders(tmp_path):
    touch(tmp_path, "target/one.png", "parts/one/10.png", "parts/one/2.png")
    touch(tmp_path, "target/two.jpg", "parts/two/x.png", "parts/three/0.png")
    touch(tmp_path, "parts/stray.png", "sheet.png", "parts/one/.hidden.png")
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "folders" and {each.group for each in dataset.concepts} == {""}
    assert found(tmp_path) == {"target/one": ["2.png", "10.png"], "target/two": ["x.png"]}
    assert skipped(tmp_path) == {
        "parts/three/0.png": "a part without its target", "parts/stray.png": "outside the sub-folders"
    }


def test_of_names_that_are_the_same_the_first_stays(tmp_path):
    composed, decomposed = "fianc\u00e9e_a", "fiance\u0301e_a"
    touch(tmp_path, "set/a_b.jpg", "set/a_b.png", "set/A_B.webp", "set/a_b_0.jpg", "set/a_b_0.png")
    touch(tmp_path, f"set/{composed}.png", f"set/{decomposed}.png", f"set/{composed}_0.png")
    touch(tmp_path, f"set/{decomposed}_0.png")
    if len(list((tmp_path / "set").iterdir())) < 9:
        pytest.skip("this file system takes them for one file")
    dataset = read_dataset(tmp_path)
    assert len(dataset.concepts) == 2 and all(len(each.parts) == 1 for each in dataset.concepts)
    assert [each.why for each in dataset.skipped].count("the same name as another") == 5


def test_folders_of_parts_of_the_same_name_are_not_mixed(tmp_path):
    touch(tmp_path, "target/a.png", "parts/A/0.png", "parts/a/0.png", "parts/a/1.png")
    if len(list((tmp_path / "parts").iterdir())) < 2:
        pytest.skip("this file system takes them for one folder")
    assert found(tmp_path) == {"target/a": ["0.png"]}
    assert skipped(tmp_path) == {"parts/a": "the same name as another"}


def test_unicode_and_very_long_names(tmp_path):
    names = ["\u9f8d \u0434\u0440\u0430\u043a\u043e\u043d", "x" * 240, "a.b.c"]
    touch(tmp_path, *(f"target/{name}.png" for name in names), *(f"parts/{name}/0.png" for name in names))
    assert set(found(tmp_path)) == {f"target/{name}" for name in names}


def test_nothing_to_read_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no folder at .*missing"):
        read_dataset(tmp_path / "missing")
    with pytest.raises(ValueError, match="target/NAME.png.*: nothing. Point to"):
        read_dataset(tmp_path)
    touch(tmp_path, "one.png")
    with pytest.raises(ValueError, match=r"skipped: 1, outside the sub-folders \(one.png\).*make-parts"):
        read_dataset(tmp_path)


def test_targets_without_any_parts_are_no_dataset(tmp_path):
    (tmp_path / "parts").mkdir()
    with pytest.raises(ValueError, match=r"1, a target without parts \(target/one.png\)"):
        read_dataset(touch(tmp_path, "target/one.png"))


def test_folders_below_the_sub_folders_are_not_entered(tmp_path):
    touch(tmp_path, "set/a_b.jpg", "set/a_b_0.jpg", "set/deep/c_d.jpg", "set/deep/c_d_0.jpg")
    assert list(found(tmp_path)) == ["set/a_b"]
    assert skipped(tmp_path) == {"set/deep": "a folder nested too deep"}


def test_the_report_counts_and_names(published):
    lines = describe(read_dataset(published)).splitlines()
    assert lines[0].endswith("my_data_set: 3 concepts (as published, 2 sub-folders)")
    assert lines[1] == "parts: 4, 1.3 per concept, at most 2"
    lonely = next(line for line in lines if "a target without parts" in line)
    assert lonely.startswith("skipped: 4,") and lonely.endswith(", ...)") and lonely.count(".jpg") == 3
    assert sum(int(line.split()[1].rstrip(",")) for line in lines[2:]) == len(SKIPPED)


def test_the_sheet_shows_targets_beside_their_parts_and_marks_what_is_unreadable(tmp_path):
    paint(tmp_path / "target/a.png", "red")
    paint(tmp_path / "parts/a/0.png", "lime", (40, 40))
    touch(tmp_path, "parts/a/1.png")
    sheet = dataset_sheet(read_dataset(tmp_path))
    assert sheet.size == (3 * 128, 128)
    assert [sheet.getpixel((x, 64)) for x in (64, 192, 320)] == [(255, 0, 0), (0, 255, 0), (255, 0, 0)]
    assert sheet.getpixel((320, 20)) == (255, 255, 255)


def test_the_sheet_spreads_over_large_datasets(tmp_path):
    for number, colour in enumerate(("red", "lime", "blue", "black")):
        paint(tmp_path / f"target/{number}.png", colour)
        paint(tmp_path / f"parts/{number}/0.png", colour)
    sheet = dataset_sheet(read_dataset(tmp_path), count=2)
    assert sheet.size == (256, 256)
    assert [sheet.getpixel((64, y)) for y in (64, 192)] == [(255, 0, 0), (0, 0, 255)]


def test_pictures_come_upright_and_on_white(tmp_path):
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.new("RGB", (30, 10), "blue").save(turned, exif=exif)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(clear)
    assert open_picture(turned).size == (10, 30)
    assert open_picture(clear).mode == "RGB" and open_picture(clear).getpixel((0, 0)) == (255, 255, 255)


def test_grey_pictures_of_16_bits_keep_their_shades(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(open_picture(tmp_path / "deep.png"))[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_truncated_and_scrambled_pictures_name_their_file(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for broken in (b"", b"no picture at all", whole[: len(whole) // 2], whole[:20]):
        path.write_bytes(broken)
        with pytest.raises(PictureError, match=f"picture.{ending} cannot be read"):
            open_picture(path)


def test_missing_and_enormous_pictures_are_refused(tmp_path):
    with pytest.raises(PictureError, match="gone.png cannot be read"):
        open_picture(tmp_path / "gone.png")
    Image.new("1", (10000, 8001)).save(tmp_path / "huge.png")
    with pytest.raises(PictureError, match="at most 80 megapixels, got 10000x8001 in .*huge.png"):
        open_picture(tmp_path / "huge.png")
