"""The SDXL graphs of the pack in a real ComfyUI, small, and with probes that write down what they compute."""
from __future__ import annotations

import copy
import json
import os
from pathlib import Path

from benchmarks.full_size.files import Files
from benchmarks.full_size.watch import Cost, StageWatch, processes_below
from dev import ROOT, Failure
from dev.comfyui import ensure_comfyui, make_base
from dev.server import ComfyServer

GRAPHS = ("piece_it_together_sdxl", "concept_in_a_scene_sdxl", "character_sheet_sdxl")
PROBES = Path(__file__).with_name("probes")
SIZE, SECONDS = 256, 7200.0
# Places in the schedule of 1000 times on which 4 steps fall exactly, so that no way to interpolate between
# them differs from another.
STEPS = 4
SMALL = {
    "PiT_EmptyLatent": {"images_per_concept": 1, "percent": 100 * SIZE // 1024},
    "KSampler": {"steps": STEPS},
    "PiT_SamplePrior": {"concepts": 1},
}
# Behind the first output of each kind of node: the kind of probe, and the name of what it writes.
PROBED = {
    "CLIPVisionLoader": ("vision", "vision"), "PiT_LoadIPAdapter": ("adapter", "adapter"),
    "PiT_LoadIPPrior": ("prior", "prior"), "PiT_EncodeParts": ("values", "parts"),
    "PiT_EncodeImage": ("values", "tokens"), "PiT_SamplePrior": ("values", "tokens"),
    "PiT_ApplyTokens": ("unet", "unet"), "KSampler": ("values", "latents"),
}
STAGES = {
    "CheckpointLoaderSimple": "load SDXL", "CLIPVisionLoader": "load CLIP ViT-H",
    "PiT_LoadIPAdapter": "load IP-Adapter", "PiT_LoadIPPrior": "load IP-Prior",
    "PiT_EncodeParts": "encode pictures", "PiT_EncodeImage": "encode pictures",
    "PiT_SamplePrior": "sample prior", "PiT_ApplyIPLora": "read IP-LoRA", "CLIPTextEncode": "encode prompts",
    "KSampler": "render", "VAEDecode": "decode",
}
AS_CHOSEN = "sample prior as the node chooses"


def published(name: str) -> dict:
    """A graph that comes with the pack, in ComfyUI's API format."""
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def small(graph: dict) -> dict:
    """A copy with few steps, of one picture of 256 pixels."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
    return graph


def probed(graph: dict, folder: Path) -> dict:
    """A copy in which everything of interest passes a probe that writes to `folder`."""
    probes = {
        key: PROBED[node["class_type"]] for key, node in graph.items() if node["class_type"] in PROBED
    }

    def through(value: object) -> object:
        linked = isinstance(value, list) and value[1] == 0 and value[0] in probes
        return [probe_of(value[0]), 0] if linked else value

    copied = {
        key: node | {"inputs": {name: through(value) for name, value in node["inputs"].items()}}
        for key, node in graph.items()
    }
    for key, (kind, name) in probes.items():
        copied[probe_of(key)] = probe([key, 0], kind, folder, name)
    return copied | also_as_chosen(copied, folder)


def probe_of(key: str) -> str:
    """The key of the probe behind a node."""
    return f"{key}_probe"


def probe(value: list, kind: str, folder: Path, name: str) -> dict:
    """A node that writes down a value."""
    inputs = {"value": value, "kind": kind, "folder": str(folder), "name": name}
    return {"class_type": "FullSize_Probe", "inputs": inputs}


def also_as_chosen(graph: dict, folder: Path) -> dict:
    """For each sampler of the prior one more, in the type that the node chooses by itself."""
    added = {}
    for key, node in graph.items():
        if node["class_type"] == "PiT_SamplePrior":
            prior = node["inputs"]["prior"][0].removesuffix("_probe")
            added[f"{key}_as_chosen"] = node | {"inputs": node["inputs"] | {"prior": [prior, 0]}}
            added[f"{key}_written"] = probe([f"{key}_as_chosen", 0], "values", folder, "as_chosen")
    return added


def stage_of(key: str, graph: dict) -> str:
    """What a node does, for the table."""
    return AS_CHOSEN if key.endswith("_as_chosen") else STAGES.get(graph[key]["class_type"], "other nodes")


def server_of(files: Files) -> ComfyServer:
    """A ComfyUI with the pack and the probes, which is not running yet."""
    base = make_base(files.base)
    link = base / "custom_nodes" / "full_size_probes"
    if not link.is_symlink():
        os.symlink(PROBES, link, target_is_directory=True)
    # Without its cache it lets go of the encoders as soon as they have done their part.
    return ComfyServer(ensure_comfyui(), base, files.log, options=["--cache-none"])


def write_shapes(files: Files) -> None:
    """Have ComfyUI say how it lays out an SDXL in a single file."""
    if not files.shapes.is_file():
        node = {"class_type": "FullSize_Shapes", "inputs": {"file": str(files.shapes)}}
        with server_of(files) as server:
            finished(server, {"1": node})


def finished(server: ComfyServer, graph: dict, on_event=None) -> None:
    """Run a graph. Raises Failure if it does not come to its end."""
    result = server.queue(graph, on_event, SECONDS)
    if result.status != "success":
        raise Failure(f"ComfyUI could not run the graph: {result.error or result.status}.", server.log)


def run_graph(files: Files, name: str) -> dict[str, Cost]:
    """Run one graph in a fresh ComfyUI; what its stages cost."""
    folder = files.captured / name
    for old in folder.glob("*.safetensors"):
        old.unlink()
    graph = probed(small(published(name)), folder)

    def on_event(event: dict) -> None:
        if event["type"] == "executing":
            key = event["data"]["node"]
            watch.enter(None if key is None else stage_of(key, graph))

    with server_of(files) as server, StageWatch(processes_below) as watch:
        finished(server, graph, on_event)
    return watch.costs
