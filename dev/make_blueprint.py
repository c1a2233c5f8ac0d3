"""Make the blueprints: subgraphs that ComfyUI offers among its nodes, out of those of the templates.

ComfyUI reads what lies in `subgraphs` of a pack: the name of a file is that of the node, and its category,
description and search words stand inside. A blueprint is the subgraph of a template as it is, with the values
that it has there, so that nothing is written twice. Run in the folder of the pack, after a change of these
templates:

    python -m dev.make_blueprint
"""

from __future__ import annotations

import json
from typing import Any

from dev import ROOT
from dev.subgraphs import Graph, own_id
from dev.templates import BLUEPRINTS, TITLES, Blueprint

FOLDER = ROOT / "subgraphs"
CATEGORY = "Piece it Together"


def blueprint(name: str, made: Blueprint) -> Graph:
    """The subgraph with one node that stands for it, as ComfyUI saves a graph."""
    file = ROOT / "workflows" / f"{TITLES[made.template]}.json"
    template = json.loads(file.read_text(encoding="utf-8"))
    (found,) = (each for each in template["definitions"]["subgraphs"] if each["name"] == made.title)
    subgraph = found | {
        "id": own_id("blueprint", name), "name": name, "category": f"{CATEGORY}/{made.category}",
        "description": made.description,
    }
    if made.essential:
        subgraph["essentials_category"] = CATEGORY
    (node,) = (each for each in template["nodes"] if each["type"] == found["id"])
    outer = unlinked(node) | {"type": subgraph["id"], "title": name, "pos": [0, 0], "order": 0}
    return {
        "id": own_id("blueprint", name, "graph"), "revision": 0, "last_node_id": outer["id"],
        "last_link_id": 0, "nodes": [outer], "links": [], "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {"BlueprintDescription": made.description, "BlueprintSearchAliases": list(made.words)},
    }


def unlinked(node: dict[str, Any]) -> dict[str, Any]:
    return node | {
        "inputs": [each | {"link": None} for each in node["inputs"]],
        "outputs": [each | {"links": []} for each in node["outputs"]],
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, made in BLUEPRINTS.items():
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(blueprint(name, made), indent=1) + "\n", encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
