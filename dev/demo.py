"""The demo: parts in, whole creatures out, through ComfyUI's own queue, onto one contact sheet."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dev import ROOT, Failure
from dev.client import ComfyClient, Result

WORKFLOW = ROOT / "workflows" / "api" / "piece_it_together.json"
OUTPUT = ROOT / "output"
TIMEOUT_SECONDS = 1800.0
CELL, GAP, TITLE = 256, 8, 36


def run_demo(client: ComfyClient, workflow: Path = WORKFLOW, output: Path = OUTPUT) -> list[Path]:
    """Run the workflow, write its parts, its concepts and a contact sheet; returns the files written.

    Its nodes that show or save pictures are found by their titles, "Parts" and "Concepts".
    """
    graph = json.loads(workflow.read_text())
    result = finished(client, graph)
    parts = pictures(client, graph, result, "Parts")
    concepts = pictures(client, graph, result, "Concepts")
    output.mkdir(parents=True, exist_ok=True)
    files = {output / f"part_{number}.png": image for number, image in enumerate(parts, 1)}
    files |= {output / f"concept_{number}.png": image for number, image in enumerate(concepts, 1)}
    files[output / "contact_sheet.png"] = contact_sheet(parts, concepts)
    for path, image in files.items():
        image.save(path)
    return list(files)


def finished(client: ComfyClient, graph: dict) -> Result:
    """Run a graph to its end, with a progress bar."""
    result = client.queue(graph, Progress(graph), TIMEOUT_SECONDS)
    if result.status != "success" or result.error:
        raise Failure(f"ComfyUI did not make the pictures: {result.error or result.status}.", client.log)
    return result


def pictures(client: ComfyClient, graph: dict, result: Result, title: str) -> list[Image.Image]:
    """What the output node with this title shows or saves, in order."""
    nodes = [node_id for node_id, node in graph.items() if title_of(node) == title]
    saved = [image for node_id in nodes for image in result.outputs.get(node_id, {}).get("images", [])]
    if not saved:
        raise Failure(f"The workflow ran, but its node titled {title!r} saved no picture.", client.log)
    return [Image.open(io.BytesIO(client.view(image))).convert("RGB") for image in saved]


def title_of(node: dict) -> str:
    return node.get("_meta", {}).get("title", node["class_type"])


def contact_sheet(parts: list[Image.Image], concepts: list[Image.Image]) -> Image.Image:
    """One picture: the parts in columns on the left, the concepts in a grid on the right, both titled."""
    rows = max(math.ceil(math.sqrt(len(concepts) / 2)), 2)
    left, right = math.ceil(len(parts) / rows), math.ceil(len(concepts) / rows)
    step = CELL + GAP
    width = (left + right) * step + 4 * GAP
    sheet = Image.new("RGB", (width, rows * step + TITLE + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    columns = (("Parts", parts, left, GAP), ("Concepts", concepts, right, left * step + 3 * GAP))
    for title, images, count, x in columns:
        draw.text((x, GAP), title, "black", font)
        for index, image in enumerate(images):
            row, column = divmod(index, count)
            sheet.paste(fitted(image), (x + column * step, TITLE + row * step))
    line = left * step + GAP * 3 // 2
    draw.line([(line, TITLE), (line, sheet.height - GAP)], "silver", 2)
    return sheet


def fitted(image: Image.Image) -> Image.Image:
    """The whole image, centred on a white cell."""
    scale = CELL / max(image.size)
    size = [max(round(side * scale), 1) for side in image.size]
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(image.resize(size, Image.Resampling.LANCZOS), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


class Progress:
    """Draws a bar from ComfyUI's progress messages; where there is no terminal, prints a line per node."""

    def __init__(self, graph: dict, stream=sys.stdout):
        self.titles = {key: title_of(node) for key, node in graph.items()}
        self.stream = stream
        self.cached: set[str] = set()
        self.running = None

    def __call__(self, event: dict) -> None:
        if event["type"] == "execution_cached":
            self.cached = set(event["data"]["nodes"])
        elif event["type"] == "progress_state":
            self.draw(event["data"]["nodes"])
        elif event["type"] == "execution_success":
            self.line(1.0, "done")
            self.stream.write("\n" if self.stream.isatty() else "")

    def draw(self, nodes: dict[str, dict]) -> None:
        done = len(self.cached) + sum(node["value"] / max(node["max"], 1) for node in nodes.values())
        running = next((node for node in nodes.values() if node["state"] == "running"), None)
        if running is not None:
            key = running["display_node_id"]
            steps = f" {running['value']:g}/{running['max']:g}" if running["max"] > 1 else ""
            self.line(min(done / len(self.titles), 1.0), self.titles.get(key, key), steps)

    def line(self, fraction: float, title: str, steps: str = "") -> None:
        if self.stream.isatty():
            bar = ("#" * round(30 * fraction)).ljust(30, ".")
            self.stream.write(f"\r\x1b[K[{bar}] {fraction:4.0%}  {title}{steps}")
        elif title != self.running:
            self.stream.write(f"  {fraction:4.0%}  {title}\n")
        self.running = title
        self.stream.flush()
