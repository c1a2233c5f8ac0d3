"""The command make-parts, from a folder of pictures to a dataset."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pit.commands.make_parts import add_arguments, run
from pit.piece_it_together.training.dataset import read_dataset


def make(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(each) for each in arguments]))


def toy(color: str = "red") -> Image.Image:
    """A head on a body, on white."""
    image = Image.new("RGB", (120, 120), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((35, 55, 85, 110), color)
    pen.ellipse((40, 10, 80, 50), "navy")
    pen.rectangle((55, 45, 65, 58), "navy")
    return image


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def save_mask(path: Path, left: int, size: tuple[int, int] = (120, 120)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, (left, 10, left + 30, 40))
    mask.save(path)


def test_a_folder_of_pictures_is_enough(source, tmp_path, capsys):
    for name, color in (("one.png", "red"), ("two.jpg", "green"), ("\u9f8d.webp", "orange")):
        toy(color).save(source / name)
    assert make(source, tmp_path / "out") == 0
    dataset = read_dataset(tmp_path / "out")
    assert [each.name for each in dataset.concepts] == ["target/one", "target/two", "target/\u9f8d"]
    assert all(len(each.parts) == 2 for each in dataset.concepts) and dataset.skipped == ()
    printed = capsys.readouterr().out
    assert "3 concepts (target/ and parts/)" in printed and "skipped" not in printed
    with Image.open(tmp_path / "out/sheet.png") as sheet:
        assert sheet.size == (3 * 128, 3 * 128)


def test_one_picture_is_a_dataset(source, tmp_path):
    toy().save(source / "only.png")
    assert make(source, tmp_path / "out") == 0
    assert len(read_dataset(tmp_path / "out").concepts) == 1


def test_what_cannot_be_used_is_skipped_counted_and_named(source, tmp_path, capsys):
    toy().save(source / "good.png")
    toy().save(source / "good.webp")
    (source / "corrupt.png").write_bytes(b"not a picture")
    (source / "cut.png").write_bytes((source / "good.png").read_bytes()[:200])
    Image.new("RGB", (50, 50), "white").save(source / "empty.png")
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 90), Image.Resampling.NEAREST).save(source / "busy.png")
    (source / "notes.txt").touch()
    assert make(source, tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped")]
    assert sorted(lines) == [
        "skipped: 1, Expected an object on plain ground, got a border whose color is not even. "
        "Give masks for this picture, or put the object on white. (busy.png)",
        "skipped: 1, no area that can be a part (empty.png)",
        "skipped: 1, not one of .jpg, .jpeg, .png, .webp (notes.txt)",
        "skipped: 1, the same name as another (good.webp)",
        "skipped: 2, unreadable, or of more than 80 megapixels (corrupt.png, cut.png)",
    ]
    assert [each.name for each in read_dataset(tmp_path / "out").concepts] == ["target/good"]


def test_masks_say_where_the_parts_are(source, tmp_path, capsys):
    masks = tmp_path / "masks"
    for name in ("many", "colored", "none", "empty", "other", "broken"):
        toy().save(source / f"{name}.png")
    save_mask(masks / "many/0.png", 5)
    save_mask(masks / "many/1.png", 60)
    save_mask(masks / "colored.png", 40)
    save_mask(masks / "empty/0.png", 200)
    save_mask(masks / "other/0.png", 5, (60, 60))
    (masks / "broken").mkdir()
    (masks / "broken/0.png").write_bytes(b"broken")
    assert make(source, tmp_path / "out", "--masks", masks) == 0
    found = {each.name: len(each.parts) for each in read_dataset(tmp_path / "out").concepts}
    assert found == {"target/many": 2, "target/colored": 1}
    printed = capsys.readouterr().out
    assert "skipped: 1, no masks of its name (none.png)" in printed
    assert "skipped: 1, no area that can be a part (empty.png)" in printed
    assert "picture's size 120x120, got 60x60" in printed and "(other.png)" in printed
    assert f"{masks / 'broken' / '0.png'} cannot be read" in printed and "(broken.png)" in printed


def test_the_rules_reach_the_masks(source, tmp_path):
    toy().save(source / "a.png")
    save_mask(tmp_path / "masks/a/0.png", 0)
    save_mask(tmp_path / "masks/a/1.png", 40)
    save_mask(tmp_path / "masks/a/2.png", 80)
    assert make(source, tmp_path / "out", "--masks", tmp_path / "masks", "--drop-border", "--limit", 1) == 0
    (concept,) = read_dataset(tmp_path / "out").concepts
    assert len(concept.parts) == 1
    with Image.open(concept.parts[0]) as part:
        assert np.array_equal(np.asarray(part), np.asarray(toy().crop((40, 10, 70, 40))))


@pytest.mark.parametrize("rules", [["--minimum", 0.5], ["--limit", 0]])
def test_rules_that_let_nothing_through_are_explained(source, tmp_path, capsys, rules):
    toy().save(source / "a.png")
    assert make(source, tmp_path / "out", *rules) == 1
    assert "smallest < largest <= 1 (shares of the picture) and at least one part" in capsys.readouterr().err


def test_nothing_to_work_on_is_explained(source, tmp_path, capsys):
    assert make(tmp_path / "gone", tmp_path / "out") == 1
    assert make(source, tmp_path / "out") == 1
    assert make(source, tmp_path / "out", "--masks", tmp_path / "gone") == 1
    (source / "a.png").touch()
    assert make(source, tmp_path / "out") == 1
    gone, empty, masks, unreadable = capsys.readouterr().err.strip().split("error: ")[1:]
    assert "Expected a folder, got none at" in gone and "Expected a folder, got none at" in masks
    assert "Expected pictures (.jpg, .jpeg, .png, .webp)" in empty
    assert "got none. skipped: 1, unreadable, or of more than 80 megapixels (a.png)" in unreadable
    assert not (tmp_path / "out").exists()


def test_names_that_lead_elsewhere_are_skipped(source, tmp_path, capsys):
    toy().save(source / "good.png")
    hostile = source / "a\\up.png"
    toy().save(hostile)
    if not hostile.is_file() or hostile.parent != source:
        pytest.skip("this file system does not take the name")
    assert make(source, tmp_path / "out") == 0
    assert "which leads to another folder" in capsys.readouterr().out
    assert [each.name for each in read_dataset(tmp_path / "out").concepts] == ["target/good"]


def test_an_output_that_cannot_be_written_is_explained(source, tmp_path, capsys):
    toy().save(source / "a.png")
    (tmp_path / "out").touch()
    assert make(source, tmp_path / "out") == 1
    assert "error: " in capsys.readouterr().err
