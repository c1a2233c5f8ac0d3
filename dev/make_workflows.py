"""Make the graphs for people from their API twins, in the real page of a real ComfyUI.

The page itself arranges and saves them, following the modules of `dev` whose names end in `layouts`. Graphs
for published models, which cannot run without them, also get a picture of the graph as their thumbnail. Run
in the folder of the pack, inside dev.py's environment:

    python -m dev.make_workflows
    python -m dev.make_workflows piece_it_together blend_concepts   # only these
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dev import LOGS, ROOT, Failure
from dev.browser import ARGUMENTS, find_chromium, open_page
from dev.comfyui import ensure_comfyui, make_base
from dev.concept_layouts import LAYOUTS as CONCEPT_LAYOUTS
from dev.direction_layouts import LAYOUTS as DIRECTION_LAYOUTS
from dev.insertion_layouts import LAYOUTS as INSERTION_LAYOUTS
from dev.layouts import LAYOUTS as OTHER_LAYOUTS
from dev.layouts import Layout, Note
from dev.lora_layouts import LAYOUTS as LORA_LAYOUTS
from dev.pairs_layouts import LAYOUTS as PAIRS_LAYOUTS
from dev.partcraft_layouts import LAYOUTS as PARTCRAFT_LAYOUTS
from dev.parts2whole_layouts import LAYOUTS as PARTS2WHOLE_LAYOUTS
from dev.pops_layouts import LAYOUTS as POPS_LAYOUTS
from dev.server import ComfyServer
from pit.files.published import published_files
from pit.parts2whole.published import IMAGE_ENCODER

WORKFLOWS = ROOT / "workflows"
LAYOUTS = (
    OTHER_LAYOUTS | CONCEPT_LAYOUTS | LORA_LAYOUTS | DIRECTION_LAYOUTS | POPS_LAYOUTS | INSERTION_LAYOUTS
    | PARTCRAFT_LAYOUTS | PARTS2WHOLE_LAYOUTS | PAIRS_LAYOUTS
)
PICTURED = (
    "blend_concepts_sdxl", "character_sheet_sdxl", "concept_in_a_scene_sdxl", "explore_concepts_sdxl",
    "generate_a_dataset", "piece_it_together_sdxl", *POPS_LAYOUTS, *INSERTION_LAYOUTS, *PARTCRAFT_LAYOUTS,
    *PARTS2WHOLE_LAYOUTS, *PAIRS_LAYOUTS,
)
THUMBNAIL_WIDTH = 1200
MENUS, SMALLER = (60, 50), 0.93  # pixels at the left and at the top, and what leaves room for them
# Without the last, the page leaves out all words of a graph that is so large that they become small.
SETTINGS = {
    "Comfy__Minimap__Visible": False, "Comfy__Graph__CanvasInfo": False, "Comfy__Graph__CanvasMenu": False,
    "LiteGraph__Canvas__MinFontSizeForLOD": 0,
}
CHECKPOINT = "checkpoints/sd_xl_base_1.0.safetensors"
SD15 = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
HUB = "https://huggingface.co"
DEPTH_MODEL = "geometry_estimation/depth_anything_3_mono_large.safetensors"
DEPTH_CONTROL = "controlnet/controlnet-depth-sdxl-1.0.safetensors"
SAM = "checkpoints/sam3.1_multiplex_fp16.safetensors"
INPAINTING = "diffusion_models/sdxl-inpainting-0.1.safetensors"
# Where the page can get each file that the graphs name, by its place below ComfyUI's `models`.
SOURCES = {
    CHECKPOINT: f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{Path(CHECKPOINT).name}",
    SD15: f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{Path(SD15).name}",
    DEPTH_MODEL: f"{HUB}/Comfy-Org/Depth-Anything-3/resolve/main/{DEPTH_MODEL}",
    DEPTH_CONTROL: (
        f"{HUB}/diffusers/controlnet-depth-sdxl-1.0/resolve/main/diffusion_pytorch_model.fp16.safetensors"
    ),
    SAM: f"{HUB}/Comfy-Org/sam3.1/resolve/main/{SAM}",
    INPAINTING: (
        f"{HUB}/diffusers/stable-diffusion-xl-1.0-inpainting-0.1/resolve/main/unet/"
        "diffusion_pytorch_model.fp16.safetensors"
    ),
    **{
        file.target: f"{HUB}/{file.repo}/resolve/main/{file.path}"
        for file in published_files() if not file.is_folder
    },
    # Published as a folder.
    **{
        f"{file.target}model.safetensors": f"{HUB}/{file.repo}/resolve/main/{file.path}model.safetensors"
        for file in IMAGE_ENCODER.published
    },
}
CONVERTED = "diffusion_models/object_insertion_unet.safetensors"  # a published file in another layout
# What else a graph names: a folder of the published model, and one of the user's pictures.
OTHERS = ("models/parts2whole/published/decoupled_attn.pth", "input/my_pictures/1.png", "input/example.png")
# The folders of the files that a node names, in the order of its first widgets.
LOADERS = {
    "CheckpointLoaderSimple": ("checkpoints",), "CLIPVisionLoader": ("clip_vision",),
    "ControlNetLoader": ("controlnet",), "LoadDA3Model": ("geometry_estimation",), "VAELoader": ("vae",),
    "UNETLoader": ("diffusion_models",),
    "PiT_LoadIPAdapter": ("ipadapter",), "PiT_LoadIPPrior": ("ip_prior",), "PiT_ApplyIPLora": ("loras",),
    "PiT_LoadBaseIPAdapter": ("ipadapter",), "PiT_LoadOperator": ("pops", "kandinsky_prior"),
    "PiT_LoadKandinskyDecoder": ("kandinsky_decoder", "kandinsky_decoder"),
    "PiT_LoadEmbeddingOptimizer": ("object_insertion",), "PiT_LoadPartCraft": ("part_words",),
    "PiT_LoadDino": ("clip_vision",), "PiT_ClothesParser": ("clothes_segmenter",),
}

ARRANGE = """({ nodes, notes, groups, randomSeeds, bypassed }) => {
    const { app, LiteGraph } = window
    const bypass = 4  // of LiteGraph's modes
    const put = (node, [left, top, width, height]) => {
        node.pos = [left, top]
        node.setSize([width, height])
    }
    for (const [id, place] of nodes) put(app.graph.getNodeById(id), place)
    for (const id of bypassed) app.graph.getNodeById(id).mode = bypass
    for (const [title, text, place] of notes) {
        const node = LiteGraph.createNode("MarkdownNote")
        app.graph.add(node)
        node.title = title
        node.widgets[0].value = text
        put(node, place)
    }
    for (const [title, [left, top, width, height]] of groups) {
        const group = new LiteGraph.LGraphGroup(title)
        group.pos = [left, top]
        group.size = [width, height]
        app.graph.add(group)
    }
    for (const node of app.graph.nodes) {
        const control = node.widgets?.find((widget) => widget.name === "control_after_generate")
        if (control) control.value = randomSeeds.includes(String(node.id)) ? "randomize" : "fixed"
    }
}"""
ALL_SHOWN = """nodes => nodes.every((id) => {
    const { imgs } = window.app.graph.getNodeById(id)
    return imgs?.length && imgs.every((image) => image.complete && image.naturalWidth)
})"""
SHOW_ALL = """([left, top, width, height]) => {
    const { canvas } = window.app
    const { clientWidth, clientHeight } = canvas.canvas
    const menu = 50
    canvas.ds.scale = Math.min((clientWidth - menu) / width, clientHeight / height)
    canvas.ds.offset = [-left, -top]
    canvas.setDirty(true, true)
}"""


def make_workflow(page, name: str, layout: Layout) -> dict:
    """The arranged graph, as the page saves it."""
    graph = whole_graph(json.loads((WORKFLOWS / "api" / f"{name}.json").read_text()), layout)
    page.evaluate("([graph, name]) => window.app.loadApiJson(graph, name)", [graph, name])
    page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(graph))
    page.evaluate(ARRANGE, plan(graph, layout))
    page.evaluate(SHOW_ALL, bounds(layout))
    page.wait_for_timeout(2000)  # the page draws, and adapts sizes to what it has drawn
    workflow = json.loads(page.evaluate("JSON.stringify(window.app.graph.serialize())"))
    for node in workflow["nodes"]:
        node["properties"] |= models_of(node) if "widgets_values" in node else {}
    workflow["extra"]["ds"] = beside_menus(**workflow["extra"]["ds"])
    # The page gives every graph a random id; a fixed one keeps the file the same from run to run.
    return workflow | {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"piece-it-together/{name}"))}


def beside_menus(scale: float, offset: Sequence[float]) -> dict[str, Any]:
    """A view in which what was at the left and at the top is not covered by the page's menus."""
    scale *= SMALLER
    return {"scale": scale, "offset": [side + menu / scale for side, menu in zip(offset, MENUS, strict=True)]}


def whole_graph(graph: dict, layout: Layout) -> dict:
    """A graph in API format with the nodes that are bypassed, and the links that lead through them."""
    graph = graph | layout.bypassed
    for (node, name), source in layout.detours.items():
        graph[node] = graph[node] | {"inputs": graph[node]["inputs"] | {name: list(source)}}
    return graph


def models_of(node: dict) -> dict[str, list[dict[str, str]]]:
    """The property by which the page offers the missing files of a loader; none for files of the pack."""
    named = zip(LOADERS.get(node["type"], ()), node["widgets_values"], strict=False)
    models = [
        {"name": name, "url": SOURCES[f"{folder}/{name}"], "directory": folder}
        for folder, name in named if f"{folder}/{name}" in SOURCES
    ]
    return {"models": models} if models else {}


def plan(graph: dict, layout: Layout) -> dict:
    """The argument of ARRANGE.

    Raises:
        Failure: the layout does not have a place for every node of the graph, and for no others.
    """
    places = [place for group in layout.groups for place in group.places()]
    nodes = [(int(what), place) for what, place in places if not isinstance(what, Note)]
    if {str(key) for key, _ in nodes} != set(graph):
        raise Failure(f"Expected a layout of the nodes {sorted(graph)}, got one of {sorted(dict(nodes))}.")
    return {
        "nodes": nodes,
        "notes": [(what.title, what.text, place) for what, place in places if isinstance(what, Note)],
        "groups": [(group.title, group.frame) for group in layout.groups],
        "randomSeeds": layout.random_seeds,
        "bypassed": [int(key) for key in layout.bypassed],
    }


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


def bounds(layout: Layout, margin: int = 40) -> tuple[int, int, int, int]:
    """What the view should show, as left, top, width, height."""
    frames = [group.frame for group in layout.groups]
    left, top = (min(frame[side] for frame in frames) - margin for side in (0, 1))
    right, bottom = (max(frame[side] + frame[side + 2] for frame in frames) + margin for side in (0, 1))
    return left, top, right - left, bottom - top


def picture_of(page, layout: Layout) -> Image.Image:
    """The graph on the page, cropped to its frames and scaled down (RGB)."""
    left, top, width, height = bounds(layout)
    scale = page.evaluate("window.app.canvas.ds.scale")
    corner = page.locator("#graph-canvas").bounding_box()
    shown = {"x": corner["x"], "y": corner["y"], "width": width * scale, "height": height * scale}
    picture = Image.open(io.BytesIO(page.screenshot(clip=shown))).convert("RGB")
    size = THUMBNAIL_WIDTH, round(THUMBNAIL_WIDTH * picture.height / picture.width)
    return picture.resize(size, Image.Resampling.LANCZOS)


def fill_base(base: Path) -> Path:
    """Put all files that the graphs name into ComfyUI's folders, so that no picture shows missing ones.

    They are empty, since the page only lists their names.
    """
    for name in (*(f"models/{name}" for name in (*SOURCES, CONVERTED)), *OTHERS):
        file = base / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return base


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
        make_all(playwright, fill_base(make_base(Path(folder))), names)


def make_all(playwright, base: Path, names: Sequence[str]) -> None:
    """Write graphs, and the pictures of those for published models."""
    with ComfyServer(ensure_comfyui(), base, LOGS / "make_workflows.log") as server:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        for name in names:
            layout = LAYOUTS[name]
            # A new page each time: one that has shown another graph would give nodes the sizes from there.
            context = browser.new_context(viewport={"width": 1920, "height": 1000})
            page = open_page(context, server, **SETTINGS)
            page.evaluate("window.app.extensionManager.toggleFocusMode()")
            workflow = make_workflow(page, name, layout)
            text = json.dumps(workflow, indent=2, ensure_ascii=False)
            (WORKFLOWS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            if name in PICTURED:
                show_previews(page, name)
                picture_of(page, layout).save(WORKFLOWS / f"{name}.jpg", quality=85, optimize=True)
            context.close()
            print(WORKFLOWS / f"{name}.json")


if __name__ == "__main__":
    main()
