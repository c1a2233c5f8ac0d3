"""Triplets from PIPE, in the published folder layout: an object is what a mask covers of its target.

Source: the two scripts of the published code that prepare data. They lose the last row and column
of each box, take all pictures for 512 x 512, and find a mask only within the same thousand rows.
"""
from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...cutouts import cut_out_part
from ...files.pictures import PictureError, decode_bytes, file_name, list_pictures, open_picture
from ...files.whole import write_whole
from ...images import on_white
from ...packages import needed_for
from ..condition import SMALLEST_OBJECT
from .triplets import COLUMNS, METADATA, OBJECT, SCENE, TARGET, TRAIN

SCENES, TARGETS, MASK, ID = "source_img", "target_img", "mask", "img_id"
"""The columns of PIPE and of PIPE_Masks."""
QUALITY = 95
ROWS_AT_ONCE = 32
Open = Callable[[], Image.Image]


@dataclass(frozen=True)
class Row:
    """A scene without an object and with it, each opened when it is needed."""

    name: str
    scene: Open
    target: Open


def pipe_rows(folder: Path) -> Iterator[Row]:
    """The rows of PIPE: of its parquet files, or of folders `source_img` and `target_img` with pictures.

    Raises:
        ValueError: there is neither, or a parquet file of another kind.
        ModuleNotFoundError: pyarrow, which reads parquet, is not installed.
    """
    files = parquet_files(folder)
    if files:
        for row in parquet_rows(files, (ID, SCENES, TARGETS)):
            scene, target = (opener(row, column) for column in (SCENES, TARGETS))
            yield Row(str(row[ID]), scene, target)
        return
    scenes, targets = by_name(folder / SCENES), by_name(folder / TARGETS)
    if not scenes.keys() & targets.keys():
        raise ValueError(
            f"Expected the parquet files of PIPE in {folder}, or folders {SCENES} and {TARGETS} with "
            "pictures of the same names, got neither. Download paint-by-inpaint/PIPE."
        )
    for name, path in scenes.items():
        if name in targets:
            yield Row(name, opened(path), opened(targets[name]))


def pipe_masks(folder: Path) -> Iterator[tuple[str, Open]]:
    """The masks of PIPE_Masks by the names of their rows: of its parquet files, or pictures by their names.

    Raises:
        ValueError, ModuleNotFoundError: as in `pipe_rows`.
    """
    files = parquet_files(folder)
    if files:
        for row in parquet_rows(files, (ID, MASK)):
            yield str(row[ID]), opener(row, MASK)
        return
    pictures = by_name(folder)
    if not pictures:
        raise ValueError(
            f"Expected the parquet files of PIPE_Masks in {folder}, or pictures, got neither. Download "
            "paint-by-inpaint/PIPE_Masks."
        )
    for name, path in pictures.items():
        yield name, opened(path)


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files below a folder."""
    return sorted(folder.rglob("*.parquet"))


def parquet_rows(files: list[Path], columns: tuple[str, ...]) -> Iterator[Mapping[str, object]]:
    """Rows of parquet files, a few at once. Raises ValueError and ModuleNotFoundError as `pipe_rows`."""
    with needed_for("Reading parquet files"):
        import pyarrow
        import pyarrow.parquet
    for path in files:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise ValueError(f"it has no columns {', '.join(missing)}")
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ValueError(
                f"{path}: expected a parquet file with the columns {', '.join(columns)}, got another one "
                f"({error}). Download it again."
            ) from error


def opener(row: Mapping[str, object], column: str) -> Open:
    """Opens the picture in a cell, as the package datasets stores it."""
    def open_cell() -> Image.Image:
        cell = row[column]
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise PictureError(f"Expected a picture in {column} of row {row[ID]}, got none.")
        return on_white(decode_bytes(content, f"{column} of row {row[ID]}"))

    return open_cell


def opened(path: Path) -> Open:
    """Opens the picture in a file."""
    return lambda: open_picture(path)


def by_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names; none if there is no folder."""
    pictures, _ = list_pictures(folder) if folder.is_dir() else ([], [])
    return {path.stem: path for path in pictures}


def write_triplet(output: Path, row: Row, mask: Open | None, cut_out: bool = False) -> str | None:
    """Write the three pictures of a row; returns None, or why there is no triplet.

    Args:
        mask: of the object, in the picture with it, of any size.
        cut_out: put the object on white; else it is a crop with what is around it, as published.
    """
    if mask is None:
        return "no mask"
    name = file_name(row.name)
    paths = {column: output / TRAIN / column / f"{name}.jpg" for column in COLUMNS}
    if all(path.is_file() for path in paths.values()):
        return None
    try:
        scene, target, given = row.scene(), row.target(), mask()
    except PictureError:
        return "a picture that cannot be read"
    # Any of it counts, as published, in the target's size: masks may be smaller than their pictures.
    covered = given.convert("L").point(lambda value: 255 * (value > 0))
    covered = covered.resize(target.size, Image.Resampling.NEAREST)
    box = covered.getbbox()
    if box is None:
        return "an empty mask"
    shown = cut_out_part(target, covered) if cut_out else target.crop(box)
    if max(shown.size) < SMALLEST_OBJECT:
        return f"an object of fewer than {SMALLEST_OBJECT} pixels"
    for column, picture in {SCENE: scene, OBJECT: shown, TARGET: target}.items():
        paths[column].parent.mkdir(parents=True, exist_ok=True)
        write_whole(paths[column], as_jpeg(picture))
    return None


def as_jpeg(picture: Image.Image) -> bytes:
    """A picture as the published layout has it, but with less loss."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, subsampling=0)
    return content.getvalue()


def write_metadata(output: Path) -> int:
    """Write the list of all complete triplets in a folder, if there are any; returns their number.

    Raises:
        OSError: it cannot be written.
    """
    root = output / TRAIN
    names = sorted(path.name for path in (root / COLUMNS[0]).glob("*.jpg"))
    names = [name for name in names if all((root / column / name).is_file() for column in COLUMNS)]
    if not names:
        return 0
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([ID, SCENE, TARGET, OBJECT])
    for name in names:
        writer.writerow([Path(name).stem, *(f"{column}/{name}" for column in (SCENE, TARGET, OBJECT))])
    write_whole(root / METADATA, table.getvalue().encode())
    return len(names)
