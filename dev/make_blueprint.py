"""Make the blueprint "Insert an object": a subgraph that ComfyUI offers among its nodes.

ComfyUI reads what lies in `subgraphs` of a pack. What is inside of the blueprint is declared here; places,
ids and links follow from it. Run in the folder of the pack:

    python -m dev.make_blueprint
"""
from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dev import ROOT

NAME = "Insert an object"
DESCRIPTION = (
    "Inserts an object, shown in a picture of its own, into a scene: the model finds the place by itself. "
    "With a region, everything outside of it is kept to the pixel."
)
FOLDER = ROOT / "subgraphs"
CONTROL = "control_after_generate"
INPUT, OUTPUT = -10, -20  # of the subgraph itself, as ComfyUI numbers them
OUTER = 13  # of the node that stands for it; one that is inside as well would be renumbered
COLUMN, ROW = 420, 330
KINDS = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "COMBO"}  # no text among the widgets


@dataclass(frozen=True)
class Node:
    """A node of the subgraph.

    Attributes:
        links: by input, the number of another node with its output, or the name of an input of the subgraph.
        types: of these inputs and of the outputs, by name.
        widgets: values in the order of the node.
        place: column and row.
    """

    type: str
    place: tuple[int, int]
    outputs: Mapping[str, str]
    links: Mapping[str, tuple[int, int] | str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    widgets: Mapping[str, Any] = field(default_factory=dict)


INPUTS = {"object": "IMAGE", "scene": "IMAGE", "object_mask": "MASK", "region": "MASK"}
SHOWN = (
    (1, "unet_name"), (2, "vae_name"), (3, "clip_name"), (4, "file"), (6, "guidance"), (6, "image_guidance"),
    (7, "steps"), (8, "noise_seed"), (8, CONTROL),
)
"""The widgets that the subgraph shows, by the node that they belong to."""
RESULT = 12, 0, "IMAGE"
CONDITIONINGS = dict.fromkeys(("object_context", "null_context"), "CONDITIONING")
NODES = {
    1: Node("UNETLoader", (0, 0), {"MODEL": "MODEL"}, widgets={
        "unet_name": "object_insertion_unet.safetensors", "weight_dtype": "default",
    }),
    2: Node("VAELoader", (0, 1), {"VAE": "VAE"}, widgets={"vae_name": "object_insertion.safetensors"}),
    3: Node("CLIPVisionLoader", (0, 2), {"CLIP_VISION": "CLIP_VISION"}, widgets={
        "clip_name": "clip-vit-large-patch14.safetensors",
    }),
    4: Node("PiT_LoadEmbeddingOptimizer", (0, 3), {"optimizer": "PIT_EMBEDDING_OPTIMIZER"}, widgets={
        "file": "emb_opt.pt", "nan_as_zero": False,
    }),
    5: Node(
        "PiT_EncodeObject", (1, 1), CONDITIONINGS,
        {"optimizer": (4, 0), "clip_vision": (3, 0), "image": "object", "mask": "object_mask"},
        {
            "optimizer": "PIT_EMBEDDING_OPTIMIZER", "clip_vision": "CLIP_VISION", "image": "IMAGE",
            "mask": "MASK",
        },
        {
            "seed": 0, CONTROL: "fixed", "queries": 16, "variants": 1, "fit": "letterbox",
            "pixel_scale": "as published", "null": "zeros",
        },
    ),
    6: Node(
        "PiT_InsertObject", (2, 0),
        {
            "guider": "GUIDER", "latent": "LATENT", "place": "PIT_PLACE",
            **dict.fromkeys(("object_and_scene", "scene_only", "neither"), "CONDITIONING"),
        },
        {
            "model": (1, 0), "vae": (2, 0), "scene": "scene", "object_context": (5, 0),
            "null_context": (5, 1), "region": "region",
        },
        {"model": "MODEL", "vae": "VAE", "scene": "IMAGE", **CONDITIONINGS, "region": "MASK"},
        {"guidance": 7.0, "image_guidance": 1.5, "working_size": 512, "margin": 0.5},
    ),
    7: Node("PiT_InsertionSchedule", (2, 2), {"sigmas": "SIGMAS"}, {"model": (1, 0)}, {"model": "MODEL"}, {
        "steps": 30, "spacing": "karras",
    }),
    8: Node("RandomNoise", (3, 2), {"NOISE": "NOISE"}, widgets={"noise_seed": 0, CONTROL: "randomize"}),
    9: Node("KSamplerSelect", (3, 3), {"SAMPLER": "SAMPLER"}, widgets={"sampler_name": "dpmpp_2m"}),
    10: Node(
        "SamplerCustomAdvanced", (3, 0), {"output": "LATENT", "denoised_output": "LATENT"},
        {"noise": (8, 0), "guider": (6, 0), "sampler": (9, 0), "sigmas": (7, 0), "latent_image": (6, 1)},
        {
            "noise": "NOISE", "guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
    ),
    11: Node("VAEDecode", (4, 0), {"IMAGE": "IMAGE"}, {"samples": (10, 0), "vae": (2, 0)}, {
        "samples": "LATENT", "vae": "VAE",
    }),
    12: Node("PiT_PutBack", (4, 1), {"image": "IMAGE"}, {"image": (11, 0), "place": (6, 2)}, {
        "image": "IMAGE", "place": "PIT_PLACE",
    }),
}


def own_id(what: str) -> str:
    """An id that is the same from run to run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"piece-it-together/{NAME}/{what}"))


def all_links() -> list[dict[str, Any]]:
    """All links, numbered in the order of the nodes and their inputs; the last leads out."""
    links = []
    for number, node in NODES.items():
        for slot, (name, source) in enumerate(node.links.items()):
            origin = (INPUT, list(INPUTS).index(source)) if isinstance(source, str) else source
            links.append(link(len(links) + 1, origin, (number, slot), node.types[name]))
    number, slot, kind = RESULT
    return [*links, link(len(links) + 1, (number, slot), (OUTPUT, 0), kind)]


def link(number: int, origin: tuple[int, int], target: tuple[int, int], kind: str) -> dict[str, Any]:
    return {
        "id": number, "origin_id": origin[0], "origin_slot": origin[1], "target_id": target[0],
        "target_slot": target[1], "type": kind,
    }


def inner_node(number: int, links: list[dict[str, Any]]) -> dict[str, Any]:
    """A node as ComfyUI saves it."""
    node = NODES[number]
    into = {each["target_slot"]: each["id"] for each in links if each["target_id"] == number}
    inputs = [
        {"name": name, "type": node.types[name], "link": into[slot]} for slot, name in enumerate(node.links)
    ]
    inputs += [
        {"name": name, "type": KINDS[type(value)], "widget": {"name": name}, "link": None}
        for name, value in node.widgets.items() if name != CONTROL
    ]
    outputs = [
        {"name": name, "type": kind, "links": [
            each["id"] for each in links if (each["origin_id"], each["origin_slot"]) == (number, slot)
        ]}
        for slot, (name, kind) in enumerate(node.outputs.items())
    ]
    return {
        "id": number, "type": node.type, "pos": [COLUMN * node.place[0], ROW * node.place[1]],
        "size": [360, 280], "flags": {}, "order": number - 1, "mode": 0, "inputs": inputs, "outputs": outputs,
        "properties": {"Node name for S&R": node.type}, "widgets_values": list(node.widgets.values()),
    }


def ends(slots: Mapping[str, str], links: list[dict[str, Any]], side: str, left: int) -> list[dict[str, Any]]:
    """The inputs or outputs of the subgraph."""
    number = {"origin": INPUT, "target": OUTPUT}[side]
    return [
        {
            "id": own_id(f"{side} {name}"), "name": name, "type": kind, "pos": [left, 20 * slot],
            "linkIds": [
                each["id"] for each in links
                if (each[f"{side}_id"], each[f"{side}_slot"]) == (number, slot)
            ],
        }
        for slot, (name, kind) in enumerate(slots.items())
    ]


def blueprint() -> dict[str, Any]:
    """The subgraph with one node that stands for it, as ComfyUI saves a graph."""
    links, right = all_links(), 5 * COLUMN
    subgraph = {
        "id": own_id("subgraph"), "version": 1, "revision": 0, "config": {}, "name": NAME,
        "state": {
            "lastGroupId": 0, "lastNodeId": max(NODES), "lastLinkId": len(links), "lastRerouteId": 0,
        },
        "inputNode": {"id": INPUT, "bounding": [-240, 0, 120, 40 + 20 * len(INPUTS)]},
        "outputNode": {"id": OUTPUT, "bounding": [right, 0, 120, 60]},
        "inputs": ends(INPUTS, links, "origin", -140),
        "outputs": ends({"image": RESULT[2]}, links, "target", right + 20),
        "widgets": [], "nodes": [inner_node(number, links) for number in NODES], "groups": [],
        "links": links, "extra": {}, "category": "Piece it Together/Object Insertion",
        "description": DESCRIPTION,
    }
    outer = {
        "id": OUTER, "type": subgraph["id"], "pos": [0, 0], "size": [400, 420], "flags": {}, "order": 0,
        "mode": 0, "inputs": [{"name": name, "type": kind, "link": None} for name, kind in INPUTS.items()],
        "outputs": [{"name": "image", "type": RESULT[2], "links": []}], "title": NAME,
        "properties": {"proxyWidgets": [[str(number), name] for number, name in SHOWN]},
        "widgets_values": [],
    }
    return {
        "id": own_id("graph"), "revision": 0, "last_node_id": OUTER, "last_link_id": 0, "nodes": [outer],
        "links": [], "version": 0.4, "definitions": {"subgraphs": [subgraph]}, "extra": {},
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{NAME}.json"
    path.write_text(json.dumps(blueprint(), indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
