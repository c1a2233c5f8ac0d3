"""Make the pictures that show what the demo does, and the thumbnails of the graphs with creatures.

The pictures of the demo are made from the files that `python3 dev.py demo` has left in output/, the others
from a run of the graphs in a real ComfyUI; those that train take minutes. Run in the folder of the pack,
inside dev.py's environment:

    python -m dev.thumbnails
    python -m dev.thumbnails find_a_direction token_library   # only these graphs
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from dev import LOGS, ROOT, Failure
from dev.client import ComfyClient
from dev.comfyui import ensure_comfyui, make_base
from dev.demo import CELL, GAP, OUTPUT, contact_sheet, finished, fitted, pictures, title_of
from dev.server import ComfyServer
from dev.templates import NOW, TITLES

README_PICTURE = ROOT / "docs" / "piece_it_together.jpg"
WORKFLOWS = ROOT / "workflows"
THUMBNAIL = WORKFLOWS / f"{TITLES['piece_it_together']}.jpg"
AT_ONCE = [
    name for name, title in TITLES.items() if title.endswith(f"({NOW})") and title != THUMBNAIL.stem
]
"""The graphs with creatures, but for the one that the demo runs."""
# Which nodes have the pictures, by their titles, where these are not just all that a graph saves.
SHOWN = {
    "a_folder_of_part_sets": ("Parts", "Concepts"),
    "explore_concepts": ("Wall",),
    "find_the_parts": ("Find Parts",),
    "insert_an_object": ("The scene", "The object", "With the object"),
    "train_your_own_prior": ("Concepts", "Train IP-Prior"),
}
SETS = {"a_folder_of_part_sets": 4}  # in rows of their own, with parts and concepts side by side
# How many pictures there are in strips, which are cut so that they fill a square.
STRIPS = {
    "blend_concepts": 5, "edit_by_direction": 5, "find_a_direction": 6, "token_library": 5,
    "say_it_with_a_word": 4, "chain_operators": 4,
}
THUMBNAIL_WIDTH, COLUMNS, MANY_COLUMNS, BETWEEN = 640, 4, 8, 8


def demo_pictures(kind: str, folder: Path) -> list[Image.Image]:
    """The demo's pictures of a kind, "part" or "concept", in the order of their numbers."""
    files = sorted(folder.glob(f"{kind}_*.png"), key=lambda path: int(path.stem.rpartition("_")[2]))
    if not files:
        raise Failure(f"Expected {kind}_1.png in {folder}, got no file. Run 'python3 dev.py demo' first.")
    return [Image.open(path).convert("RGB") for path in files]


def thumbnail(parts: list[Image.Image], concepts: list[Image.Image]) -> Image.Image:
    """The parts in the first row, a line, and the concepts below."""
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
    """Write the picture in the README and the thumbnail of the demo, from the demo's files in `output`."""
    parts, concepts = demo_pictures("part", output), demo_pictures("concept", output)
    readme_picture.parent.mkdir(exist_ok=True)
    contact_sheet(parts, concepts).save(readme_picture, quality=88, optimize=True)
    square = ImageOps.pad(thumbnail(parts, concepts), (THUMBNAIL_WIDTH, THUMBNAIL_WIDTH), color="white")
    square.save(thumbnail_file, quality=88, optimize=True)


def thumbnail_of_run(groups: list[list[Image.Image]]) -> Image.Image:
    """Groups of pictures, one below the other, in the middle of a white square.

    The pictures of a single group make a square, those of several have rows of eight.
    """
    columns = MANY_COLUMNS if len(groups) > 1 else math.ceil(math.sqrt(len(groups[0])))
    blocks = [block(group, columns) for group in groups]
    height = sum(each.height for each in blocks) + (len(blocks) - 1) * BETWEEN
    sheet, top = Image.new("RGB", (THUMBNAIL_WIDTH, height), "white"), 0
    for each in blocks:
        sheet.paste(each, (0, top))
        top += each.height + BETWEEN
    return ImageOps.pad(sheet, (THUMBNAIL_WIDTH, THUMBNAIL_WIDTH), color="white")


def cut(strip: Image.Image, count: int) -> list[Image.Image]:
    """The pictures of a strip, and a white one if that makes two full rows."""
    width = strip.width // count
    cells = [strip.crop((number * width, 0, (number + 1) * width, strip.height)) for number in range(count)]
    return [*cells, *[Image.new("RGB", cells[0].size, "white")] * (count % 2)]


def block(group: list[Image.Image], columns: int) -> Image.Image:
    """One group of a thumbnail, at full width."""
    columns = min(len(group), columns)
    width = THUMBNAIL_WIDTH // columns
    height = group[0].height * width // group[0].width
    resized = [each.resize((width, height), Image.Resampling.LANCZOS) for each in group]
    rows = -(-len(group) // columns)
    image = Image.new("RGB", (THUMBNAIL_WIDTH, rows * height), "white")
    for number, each in enumerate(resized):
        image.paste(each, (number % columns * width, number // columns * height))
    return image


def together(groups: list[list[Image.Image]]) -> list[list[Image.Image]]:
    """Groups of single pictures as one group; others as they are."""
    single = len(groups) > 1 and all(len(group) == 1 for group in groups)
    return [[each for group in groups for each in group]] if single else groups


def by_sets(groups: list[list[Image.Image]], sets: int) -> list[list[Image.Image]]:
    """For each set its pictures of every group, which hold equally many of each."""
    sizes = [len(group) // sets for group in groups]
    return [
        [each for group, size in zip(groups, sizes, strict=True) for each in group[start * size:][:size]]
        for start in range(sets)
    ]


def shown_titles(name: str, graph: dict) -> list[str]:
    """The titles of the nodes whose pictures a thumbnail shows."""
    saved = (title_of(node) for node in graph.values() if node["class_type"] == "SaveImage")
    return list(SHOWN.get(name, saved))


def write_thumbnail_of_run(client: ComfyClient, name: str) -> None:
    """Run a graph, and make its thumbnail from pictures of its nodes."""
    graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    result = finished(client, graph)
    path = WORKFLOWS / f"{TITLES[name]}.jpg"
    groups = together([pictures(client, graph, result, title) for title in shown_titles(name, graph)])
    if name in SETS:
        groups = by_sets(groups, SETS[name])
    if name in STRIPS:
        groups = [cut(group[0], STRIPS[name]) if len(group) == 1 else group for group in groups]
    thumbnail_of_run(groups).save(path, quality=88, optimize=True)


def main(names: Sequence[str]) -> int:
    try:
        if not names:
            write_pictures(OUTPUT, README_PICTURE, THUMBNAIL)
        # A new folder each time, or trainings of a former run would count as finished.
        with tempfile.TemporaryDirectory() as folder:
            base, log = make_base(Path(folder)), LOGS / "thumbnails.log"
            with ComfyServer(ensure_comfyui(), base, log) as server:
                for name in names or AT_ONCE:
                    write_thumbnail_of_run(server, name)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
