"""Make the graphs for people from their API twins, in the real page of a real ComfyUI.

To add a template:

1. Write its API twin, `workflows/api/NAME.json`: ids are numbers, titles say what a node does here, parts
   are previewed and not saved, and pictures come from `PiT_ExamplePictures` or are drawn.
2. Give it a title in `dev/templates.py`, in the chapter of what one wants to do.
3. Lay it out in one of the modules of `dev` whose names end in `layouts`, as rows of `Group`s: a first one
   that begins with a short note, then one for each stage. What nobody changes is `Folded` into a subgraph;
   those that others have, too, come from functions such as `render_concept`. The whole is at most 1950 wide
   and 1200 high; the command prints it.
4. Name files of new loaders in `dev/model_sources.py`.
5. Run `python -m dev.make_workflows NAME`, inside dev.py's environment and in the folder of the pack, and
   `python -m dev.thumbnails NAME` if it can run; without published models, the picture is one of the graph.
6. `tests/comfyui/test_template_rules.py` holds all of this; look at it in the page nevertheless.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from dev import LOGS, ROOT
from dev.assembly import assembled, check_complete, finished, whole_graph
from dev.browser import ARGUMENTS, find_chromium, open_page
from dev.comfyui import ensure_comfyui, make_base
from dev.concept_layouts import LAYOUTS as CONCEPT_LAYOUTS
from dev.direction_layouts import LAYOUTS as DIRECTION_LAYOUTS
from dev.insertion_layouts import LAYOUTS as INSERTION_LAYOUTS
from dev.layouts import Layout, least_height, placed
from dev.lora_layouts import LAYOUTS as LORA_LAYOUTS
from dev.model_sources import LOADERS, fill_base
from dev.pairs_layouts import LAYOUTS as PAIRS_LAYOUTS
from dev.partcraft_layouts import LAYOUTS as PARTCRAFT_LAYOUTS
from dev.parts2whole_layouts import LAYOUTS as PARTS2WHOLE_LAYOUTS
from dev.piece_layouts import LAYOUTS as PIECE_LAYOUTS
from dev.pops_layouts import LAYOUTS as POPS_LAYOUTS
from dev.server import ComfyServer
from dev.subgraphs import Graph
from dev.templates import NOW, TITLES

WORKFLOWS = ROOT / "workflows"
LAYOUTS = (
    PIECE_LAYOUTS | CONCEPT_LAYOUTS | LORA_LAYOUTS | DIRECTION_LAYOUTS | POPS_LAYOUTS | INSERTION_LAYOUTS
    | PARTCRAFT_LAYOUTS | PARTS2WHOLE_LAYOUTS | PAIRS_LAYOUTS
)
# Those that need published models: others have pictures of what they draw.
PICTURED = tuple(name for name, title in TITLES.items() if NOW not in title)
THUMBNAIL = 640  # width and height, as the templates are shown
SETTINGS = {
    "Comfy__Minimap__Visible": False, "Comfy__Graph__CanvasInfo": False, "Comfy__Graph__CanvasMenu": False,
    "Comfy__VueNodes__Enabled": True,
}
OPEN = """([graph, title]) =>
    window.app.loadGraphData(graph, true, true, title, { openSource: "template" })"""
DRAWN = """count => document.querySelectorAll("[data-node-id]").length === count"""
SIZES = """() => Object.fromEntries(window.app.graph.nodes.map(({ id, size }) => [id, [...size]]))"""
ALL_SHOWN = """nodes => nodes.every((id) => {
    const shown = [...document.querySelectorAll(`[data-node-id="${id}"] img`)]
    return shown.length && shown.every((image) => image.complete && image.naturalWidth)
})"""
SHOW_ALL = """([left, top, width, height]) => {
    const { canvas } = window.app
    const { clientWidth, clientHeight } = canvas.canvas
    canvas.ds.scale = Math.min(clientWidth / width, clientHeight / height)
    canvas.ds.offset = [-left, -top]
    canvas.setDirty(true, true)
}"""
SETTLED = 600  # milliseconds until the page has adapted the sizes of nodes to what it has drawn


def make_workflow(page, name: str, layout: Layout) -> Graph:
    """The graph for people, as it is saved."""
    twin = whole_graph(json.loads((WORKFLOWS / "api" / f"{name}.json").read_text()), layout)
    check_complete(twin, layout)
    page.evaluate("([graph, name]) => window.app.loadApiJson(graph, name)", [twin, name])
    sizes = drawn_sizes(page, len(twin))
    flat = json.loads(page.evaluate("JSON.stringify(window.app.graph.serialize())"))
    for node in flat["nodes"]:
        node["size"] = sizes[str(node["id"])]
    graph, shown = assembled(flat, layout, name)
    page.evaluate(OPEN, [graph, name])
    sizes = drawn_sizes(page, len(shown))
    heights = [
        max(least_height(row), round(sizes[str(number)][1]))  # nodes whose inputs change are small at first
        for (row, _, _), number in zip(layout.shown(), shown, strict=True)
    ]
    places, frames = placed(layout, heights)
    return finished(graph, shown, layout, places, frames, name)


def drawn_sizes(page, count: int) -> dict[str, list[float]]:
    """Width and height of the nodes of the graph in the page, once Nodes 2.0 has drawn them."""
    page.wait_for_function(DRAWN, arg=count)
    page.wait_for_timeout(SETTLED)
    return page.evaluate(SIZES)


def show_previews(page, name: str) -> None:
    """Run those nodes of a graph that only show pictures of the pack, which needs no model."""
    graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    previews = [
        key for key, node in graph.items() if node["class_type"] == "PreviewImage" and not loads(graph, key)
    ]
    if previews:
        page.evaluate("nodes => window.app.queuePrompt(0, 1, nodes)", previews)
        page.wait_for_function(ALL_SHOWN, arg=previews)
        page.wait_for_timeout(1000)  # the page draws them


def loads(graph: dict, key: str) -> bool:
    """Whether a node, or one before it, loads a file."""
    node = graph[key]
    before = [value[0] for value in node["inputs"].values() if isinstance(value, list)]
    return node["class_type"] in LOADERS or any(loads(graph, source) for source in before)


def bounds(graph: Graph, margin: int = 30) -> tuple[int, int, int, int]:
    """What a picture of the graph shows, as left, top, width, height."""
    frames = [group["bounding"] for group in graph["groups"]]
    left, top = (min(frame[side] for frame in frames) - margin for side in (0, 1))
    right, bottom = (max(frame[side] + frame[side + 2] for frame in frames) + margin for side in (0, 1))
    return left, top, right - left, bottom - top


def picture_of(page, graph: Graph) -> Image.Image:
    """The graph on the page, in the middle of a square (RGB)."""
    frame = bounds(graph)
    page.evaluate(SHOW_ALL, frame)
    page.wait_for_timeout(SETTLED)
    scale = page.evaluate("window.app.canvas.ds.scale")
    corner = page.locator("#graph-canvas").bounding_box()
    shown = {"x": corner["x"], "y": corner["y"], "width": frame[2] * scale, "height": frame[3] * scale}
    picture = Image.open(io.BytesIO(page.screenshot(clip=shown))).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), picture.getpixel((0, 0)))
    square.paste(picture, ((THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2))
    return square


def main(arguments: list[str] | None = None) -> None:
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m dev.make_workflows", description=summary)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(LAYOUTS)}")
    names = parser.parse_args(arguments).names or list(LAYOUTS)
    unknown = sorted(set(names) - set(LAYOUTS))
    if unknown:
        parser.error(f"Expected names of graphs, got {', '.join(unknown)}.")
    # Only now, because the browser's package takes a while to import.
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        make_all(playwright, make_base(Path(folder)), names)


def make_all(playwright, base: Path, names: Sequence[str]) -> None:
    """Write graphs, and the pictures of those for published models."""
    with ComfyServer(ensure_comfyui(), base, LOGS / "make_workflows.log") as server:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        # While all files are missing, as for a newcomer: nodes that miss one say so, and need more room.
        for name in names:
            # A page of its own: behind its links, one shows texts of the graph that it has shown before.
            with new_page(browser, server) as page:
                write(page, name)
        fill_base(base)
        with new_page(browser, server) as page:
            for name in (name for name in names if name in PICTURED):
                file = WORKFLOWS / f"{TITLES[name]}.json"
                graph = json.loads(file.read_text(encoding="utf-8"))
                page.evaluate(OPEN, [graph, name])
                show_previews(page, name)
                picture_of(page, graph).save(file.with_suffix(".jpg"), quality=85, optimize=True)


@contextmanager
def new_page(browser, server: ComfyServer) -> Iterator:
    """ComfyUI's page with Nodes 2.0 and nothing but the graph."""
    with browser.new_context(viewport={"width": 1600, "height": 1000}) as context:
        page = open_page(context, server, **SETTINGS)
        page.evaluate("window.app.extensionManager.toggleFocusMode()")
        yield page


def write(page, name: str) -> None:
    """Write the graph for people."""
    graph = make_workflow(page, name, LAYOUTS[name])
    path = WORKFLOWS / f"{TITLES[name]}.json"
    path.write_text(json.dumps(graph, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    width, height = bounds(graph, 0)[2:]
    print(f"{path.name}: {width} x {height}", flush=True)


if __name__ == "__main__":
    main()
