"""Make the pictures that show what the demo does, and the thumbnails of the graphs of creatures.

The demo's come from what `python3 dev.py demo` left below output/, the creature lab's from a run of its graph
in a real ComfyUI. Run in the folder of the pack, inside dev.py's environment:

    python -m dev.thumbnails
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from dev import LOGS, ROOT, STATE, Failure
from dev.client import ComfyClient
from dev.comfyui import ensure_comfyui, make_base
from dev.demo import CELL, GAP, OUTPUT, contact_sheet, finished, fitted, pictures
from dev.server import ComfyServer

README_PICTURE = ROOT / "docs" / "piece_it_together.png"
THUMBNAIL = ROOT / "workflows" / "piece_it_together.jpg"
LAB = ROOT / "workflows" / "api" / "creature_lab.json"
LAB_THUMBNAIL = ROOT / "workflows" / "creature_lab.jpg"
THUMBNAIL_WIDTH, COLUMNS, LAB_COLUMNS = 640, 4, 8


def demo_pictures(kind: str, folder: Path) -> list[Image.Image]:
    """The demo's files of a kind, "part" or "concept", in the order of their numbers."""
    files = sorted(folder.glob(f"{kind}_*.png"), key=lambda path: int(path.stem.rpartition("_")[2]))
    if not files:
        raise Failure(f"There is no {kind}_1.png in {folder}: run 'python3 dev.py demo' first.")
    return [Image.open(path).convert("RGB") for path in files]


def thumbnail(parts: list[Image.Image], concepts: list[Image.Image]) -> Image.Image:
    """The parts in the first row, a line, and the concepts below: about as wide as high, as templates are."""
    step = CELL + GAP
    rows = [parts[:COLUMNS], *(concepts[start:start + COLUMNS] for start in range(0, len(concepts), COLUMNS))]
    sheet = Image.new("RGB", (COLUMNS * step + GAP, len(rows) * step + 2 * GAP), "white")
    for number, row in enumerate(rows):
        left = (sheet.width - len(row) * step + GAP) // 2
        for column, picture in enumerate(row):
            sheet.paste(fitted(picture), (left + column * step, number * step + (GAP if number else 0)))
    ImageDraw.Draw(sheet).line([(GAP, step), (sheet.width - GAP, step)], "silver", 2)
    height = sheet.height * THUMBNAIL_WIDTH // sheet.width
    return sheet.resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS)


def write_pictures(output: Path, readme_picture: Path, thumbnail_file: Path) -> None:
    parts, concepts = demo_pictures("part", output), demo_pictures("concept", output)
    readme_picture.parent.mkdir(exist_ok=True)
    contact_sheet(parts, concepts).save(readme_picture, optimize=True)
    thumbnail(parts, concepts).save(thumbnail_file, quality=88, optimize=True)


def lab_thumbnail(concepts: list[Image.Image], table: Image.Image) -> Image.Image:
    """The concepts in rows of eight, and the table below them as wide as they are."""
    cell = THUMBNAIL_WIDTH // LAB_COLUMNS
    rows = -(-len(concepts) // LAB_COLUMNS)
    height = table.height * THUMBNAIL_WIDTH // table.width
    sheet = Image.new("RGB", (THUMBNAIL_WIDTH, rows * cell + height), "white")
    for number, concept in enumerate(concepts):
        row, column = divmod(number, LAB_COLUMNS)
        sheet.paste(concept.resize((cell, cell), Image.Resampling.LANCZOS), (column * cell, row * cell))
    sheet.paste(table.resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS), (0, rows * cell))
    return sheet


def write_lab_thumbnail(client: ComfyClient, thumbnail_file: Path) -> None:
    """Run the creature lab for its pictures."""
    graph = json.loads(LAB.read_text())
    result = finished(client, graph)
    concepts, tables = (pictures(client, graph, result, title) for title in ("Concepts", "Table"))
    lab_thumbnail(concepts, tables[0]).save(thumbnail_file, quality=88, optimize=True)


def main() -> int:
    try:
        write_pictures(OUTPUT, README_PICTURE, THUMBNAIL)
        with ComfyServer(ensure_comfyui(), make_base(STATE / "base"), LOGS / "thumbnails.log") as server:
            write_lab_thumbnail(server, LAB_THUMBNAIL)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
