"""Make the pictures that show what the demo does, from what `python3 dev.py demo` left below output/.

Writes the picture in the README and the thumbnail of the demo's graph. Run in the folder of the pack:

    python -m dev.thumbnails
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from dev import ROOT, Failure
from dev.demo import CELL, GAP, OUTPUT, contact_sheet, fitted

README_PICTURE = ROOT / "docs" / "piece_it_together.png"
THUMBNAIL = ROOT / "workflows" / "piece_it_together.jpg"
THUMBNAIL_WIDTH, COLUMNS = 640, 4


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


def main() -> int:
    try:
        write_pictures(OUTPUT, README_PICTURE, THUMBNAIL)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
