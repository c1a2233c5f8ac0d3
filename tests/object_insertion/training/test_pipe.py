"""The triplets of PIPE from local files, as pictures and as parquet."""
from __future__ import annotations

import io
import re
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image, ImageDraw

from pit.__main__ import main
from pit.object_insertion.training.pipe import Row, pipe_masks, pipe_rows, write_triplet
from pit.object_insertion.training.triplets import read_triplets


def pictures(number, size=(64, 48), box=(10, 8, 29, 39)):
    """A scene, the same with a red box in it, and the mask of that."""
    scene = Image.new("RGB", size, (20 * number, 120, 60))
    target, mask = scene.copy(), Image.new("L", size)
    ImageDraw.Draw(target).rectangle(box, "red")
    ImageDraw.Draw(mask).rectangle(box, 255)
    return scene, target, mask


def write_pipe(folder, count=3):
    places = [folder / "pipe" / "source_img", folder / "pipe" / "target_img", folder / "masks"]
    for place in places:
        place.mkdir(parents=True)
    for number in range(count):
        for place, picture in zip(places, pictures(number), strict=True):
            picture.save(place / f"{number}.png")
    return folder / "pipe", folder / "masks"


def command(*more):
    return ["make-triplets", *map(str, more)]


def test_the_command_writes_the_published_layout(tmp_path, capsys):
    pipe, masks = write_pipe(tmp_path)
    assert main(command(pipe, masks, tmp_path / "out")) == 0
    assert "written: 3 triplets" in capsys.readouterr().out
    lines = (tmp_path / "out" / "train" / "metadata.csv").read_text().splitlines()
    assert lines[0] == "img_id,original_image,target_image,object_image"
    assert lines[1] == "0,original_image/0.jpg,target_image/0.jpg,object_image/0.jpg"
    dataset = read_triplets(tmp_path / "out")
    assert len(dataset.triplets) == 3 and not dataset.skipped
    with Image.open(dataset.triplets[1].object) as shown:
        assert shown.size == (20, 32)  # to the last row and column, which the published script loses
        assert shown.getpixel((19, 31))[0] > 230 and shown.getpixel((0, 0))[0] > 230
    with Image.open(dataset.triplets[1].scene) as scene:
        assert abs(scene.getpixel((15, 20))[1] - 120) < 8


def test_what_is_there_already_is_kept_and_more_is_added(tmp_path):
    pipe, masks = write_pipe(tmp_path)
    assert main(command(pipe, masks, tmp_path / "out", "--limit", 1)) == 0
    (first,) = read_triplets(tmp_path / "out").triplets
    stamp = first.object.stat().st_mtime_ns
    assert main(command(pipe, masks, tmp_path / "out")) == 0
    assert len(read_triplets(tmp_path / "out").triplets) == 3
    assert first.object.stat().st_mtime_ns == stamp


def test_an_object_may_be_cut_out(tmp_path):
    _, target, mask = pictures(1)
    ImageDraw.Draw(mask).rectangle((10, 8, 19, 20), 0)  # not all of its box is covered

    def written(cut_out):
        folder = tmp_path / str(cut_out)
        assert write_triplet(folder, Row("a", lambda: target, lambda: target), lambda: mask, cut_out) is None
        with Image.open(folder / "train" / "object_image" / "a.jpg") as shown:
            return shown.convert("RGB")

    crop, cut = written(False), written(True)
    assert crop.size == cut.size == (20, 32)
    assert crop.getpixel((2, 2))[1] < 30 and cut.getpixel((2, 2))[1] > 230


def test_a_mask_of_another_size_is_scaled_to_its_target(tmp_path):
    scene, target, mask = pictures(0)
    small = mask.resize((32, 24), Image.Resampling.NEAREST)
    assert write_triplet(tmp_path, Row("a", lambda: scene, lambda: target), lambda: small) is None
    with Image.open(tmp_path / "train" / "object_image" / "a.jpg") as shown:
        assert abs(shown.width - 20) <= 2 and abs(shown.height - 32) <= 2


def test_what_makes_no_triplet_is_told(tmp_path, capsys):
    pipe, masks = write_pipe(tmp_path, 5)
    (masks / "0.png").unlink()
    Image.new("L", (64, 48)).save(masks / "1.png")
    (pipe / "source_img" / "2.png").write_bytes(b"no picture")
    pictures(3, box=(5, 5, 7, 8))[2].save(masks / "3.png")
    assert main(command(pipe, masks, tmp_path / "out")) == 0
    told = capsys.readouterr().out
    for reason in ("no mask", "an empty mask", "a picture that cannot be read", "an object of fewer"):
        assert f"left out: 1, {reason}" in told
    assert [each.name for each in read_triplets(tmp_path / "out").triplets] == ["4"]


def test_a_name_that_leads_elsewhere_is_refused(tmp_path):
    scene, target, mask = pictures(0)
    with pytest.raises(ValueError, match="plain name"):
        write_triplet(tmp_path, Row("../a", lambda: scene, lambda: target), lambda: mask)


@pytest.mark.parametrize("missing, message", [
    ("pipe", "parquet files of PIPE in .*, or folders source_img and target_img"),
    ("masks", "parquet files of PIPE_Masks in .*, or pictures"),
])
def test_empty_folders_are_refused(tmp_path, capsys, missing, message):
    pipe, masks = write_pipe(tmp_path)
    (tmp_path / "empty").mkdir()
    folders = {"pipe": pipe, "masks": masks, missing: tmp_path / "empty"}
    assert main(command(*folders.values(), tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert re.search(f"^error: Expected the {message}", error, re.MULTILINE)
    folders[missing] = tmp_path / "absent"
    assert main(command(*folders.values(), tmp_path / "out")) == 1
    assert "Expected a folder, got none at" in capsys.readouterr().err


def test_no_triplet_at_all_is_an_error(tmp_path, capsys):
    pipe, masks = write_pipe(tmp_path, 1)
    Image.new("L", (64, 48)).save(masks / "0.png")
    assert main(command(pipe, masks, tmp_path / "out")) == 1
    assert "at least one triplet from" in (error := capsys.readouterr().err) and "1, an empty mask" in error


def cell(picture):
    content = io.BytesIO()
    picture.save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


@pytest.fixture
def parquet(monkeypatch):
    """Stands for pyarrow, which only this command needs: files and their rows, two at once."""
    tables = {}

    class ArrowException(Exception):
        pass

    @contextmanager
    def opened(path):
        if tables.get(path.name) is None:
            raise ArrowException("no magic bytes")
        rows = tables[path.name]

        def iter_batches(count, columns):
            for first in range(0, len(rows), 2):
                chunk = [{name: row[name] for name in columns} for row in rows[first:first + 2]]
                yield SimpleNamespace(to_pylist=lambda chunk=chunk: chunk)

        yield SimpleNamespace(schema_arrow=SimpleNamespace(names=list(rows[0])), iter_batches=iter_batches)

    arrow, inner = ModuleType("pyarrow"), ModuleType("pyarrow.parquet")
    arrow.ArrowException, arrow.parquet, inner.ParquetFile = ArrowException, inner, opened
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", inner)

    def write(folder, name, rows):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).touch()
        tables[name] = rows

    return write


def test_parquet_files_are_read_and_masks_found_in_whatever_order(tmp_path, parquet):
    names = ("source_img", "target_img", "mask")
    rows = [
        {"img_id": n, "more": 1} | dict(zip(names, map(cell, pictures(n)), strict=True)) for n in range(5)
    ]
    parquet(tmp_path / "pipe", "a.parquet", rows[:3])
    parquet(tmp_path / "pipe", "b.parquet", rows[3:])
    parquet(tmp_path / "masks", "m.parquet", rows[::-1])
    assert main(command(tmp_path / "pipe", tmp_path / "masks", tmp_path / "out")) == 0
    assert [each.name for each in read_triplets(tmp_path / "out").triplets] == list("01234")


def test_cells_without_a_picture_are_left_out(tmp_path, parquet, capsys):
    scene, target, mask = map(cell, pictures(0))
    broken = [{"bytes": None, "path": "x"}, None, {"bytes": b"GIF89a", "path": None}]
    rows = [
        {"img_id": n, "source_img": each, "target_img": target} for n, each in enumerate([scene, *broken])
    ]
    parquet(tmp_path / "pipe", "a.parquet", rows)
    parquet(tmp_path / "masks", "m.parquet", [{"img_id": n, "mask": mask} for n in range(4)])
    assert main(command(tmp_path / "pipe", tmp_path / "masks", tmp_path / "out")) == 0
    assert "left out: 3, a picture that cannot be read" in capsys.readouterr().out


def test_parquet_files_of_another_kind_are_refused(tmp_path, parquet):
    parquet(tmp_path / "pipe", "a.parquet", [{"img_id": 1, "source_img": None}])
    with pytest.raises(ValueError, match="a.parquet: .* got another one .it has no columns target_img"):
        list(pipe_rows(tmp_path / "pipe"))
    parquet(tmp_path / "masks", "m.parquet", None)
    with pytest.raises(ValueError, match="m.parquet: .*no magic bytes"):
        list(pipe_masks(tmp_path / "masks"))


def test_without_pyarrow_parquet_files_say_what_is_missing(tmp_path, monkeypatch, capsys):
    for name in ("pipe", "masks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(command(tmp_path / "pipe", tmp_path / "masks", tmp_path / "out")) == 1
    assert "pip install pyarrow" in capsys.readouterr().err
