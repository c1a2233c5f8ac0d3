"""A graph for people, put together out of what the page has made of its API twin; no page is needed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dev import Failure
from dev.layouts import NOTE_COLORS, STAGES, Large, Layout, Note, Rectangle, Row, least_height
from dev.model_sources import models_of
from dev.subgraphs import Folded, Graph, fold, own_id

BYPASSED = 4  # of LiteGraph's modes
CONTROLS = ("fixed", "randomize", "increment", "decrement")
COLUMN, ROW = 400, 90  # of nodes inside a subgraph, from the left of one to that of the next, and between two


def whole_graph(graph: dict, layout: Layout) -> dict:
    """A graph in API format with the nodes that are bypassed, and the links that lead through them."""
    graph = graph | layout.bypassed
    for (node, name), source in layout.detours.items():
        graph[node] = graph[node] | {"inputs": graph[node]["inputs"] | {name: list(source)}}
    return graph


def check_complete(graph: dict, layout: Layout) -> None:
    """Raise Failure unless the layout has a place for every node of the graph, and for no others."""
    ids = [each for row, _, _ in layout.shown() for each in ids_of(row)]
    if sorted(ids) != sorted(graph):
        missing, twice = sorted(set(graph) - set(ids)), sorted(each for each in ids if ids.count(each) > 1)
        raise Failure(
            f"Expected a layout with every node once, got one without {missing}, with {twice} twice, and "
            f"with {sorted(set(ids) - set(graph))}, which the graph does not have."
        )


def ids_of(row: Row) -> list[str]:
    """The ids of the nodes of the API twin that a row shows."""
    if isinstance(row, Folded):
        return row.nodes.split()
    return [] if isinstance(row, Note) else [row.node if isinstance(row, Large) else row]


def assembled(flat: Graph, layout: Layout, name: str) -> tuple[Graph, list[int]]:
    """The graph with its subgraphs and notes, and the ids of all that is in view, in reading order.

    Sizes are the least ones, and places come later.

    Args:
        flat: the twin as the page saves it, with sizes as Nodes 2.0 draws them.
    """
    for node in flat["nodes"]:
        set_seed_control(node, "randomize" if str(node["id"]) in layout.random_seeds else "fixed")
        node["mode"] = BYPASSED if str(node["id"]) in layout.bypassed else 0
        node["properties"] |= models_of(node) if "widgets_values" in node else {}
    graph, shown, number = flat, [], max(int(each["id"]) for each in flat["nodes"])
    for row, width, group in layout.shown():
        colors = STAGES[group.stage][:2]
        if isinstance(row, str | Large):
            shown.append(int(ids_of(row)[0]))
        else:
            number += 1
            shown.append(number)
        if isinstance(row, Folded):
            arrange_inside([node for node in graph["nodes"] if node["id"] in row.ids], graph["links"])
            graph = fold(graph, row, number, name)
            switch_off_as_one(graph, number)
        elif isinstance(row, Note):
            graph["nodes"].append(note(row, number))
            colors = NOTE_COLORS
        (node,) = (each for each in graph["nodes"] if each["id"] == shown[-1])
        node |= {"size": [width, least_height(row)], "color": colors[0], "bgcolor": colors[1]}
    return graph | {"last_node_id": number, "extra": {}}, shown


def switch_off_as_one(graph: Graph, number: int) -> None:
    """A subgraph of bypassed nodes is bypassed itself, so that one switch turns all of them on."""
    subgraph = graph["definitions"]["subgraphs"][-1]
    modes = {node["mode"] for node in subgraph["nodes"]}
    (outer,) = (node for node in graph["nodes"] if node["id"] == number)
    if modes == {BYPASSED}:
        outer["mode"] = BYPASSED
        for node in subgraph["nodes"]:
            node["mode"] = 0


def set_seed_control(node: dict[str, Any], control: str) -> None:
    """What happens to the seed of a node after a run."""
    values = node.get("widgets_values")
    if isinstance(values, list):
        node["widgets_values"] = [control if each in CONTROLS else each for each in values]


def note(row: Note, number: int) -> dict[str, Any]:
    return {
        "id": number, "type": "MarkdownNote", "pos": [0, 0], "size": [0, 0], "flags": {}, "order": 0,
        "mode": 0, "inputs": [], "outputs": [], "title": row.title, "properties": {},
        "widgets_values": [row.text],
    }


def arrange_inside(nodes: Sequence[dict[str, Any]], links: Sequence[Sequence[Any]]) -> None:
    """Put nodes of a subgraph into columns: each one column behind the last of those that it reads."""
    behind = depths({node["id"] for node in nodes}, links)
    below: dict[int, int] = {}
    for node in nodes:
        depth = behind[node["id"]]
        node["pos"] = [COLUMN * depth, below.get(depth, 0)]
        below[depth] = node["pos"][1] + round(node["size"][1]) + ROW


def depths(ids: set[int], links: Sequence[Sequence[Any]]) -> dict[int, int]:
    """How many nodes stand before each of these, at most."""
    before = {each: [link[1] for link in links if link[3] == each and link[1] in ids] for each in ids}

    def depth(node: int) -> int:
        return max((depth(each) + 1 for each in before[node]), default=0)

    return {each: depth(each) for each in ids}


def finished(
    graph: Graph, shown: Sequence[int], layout: Layout, places: Sequence[Rectangle],
    frames: Sequence[Rectangle], name: str,
) -> Graph:
    """The graph with everything in its place."""
    where = dict(zip(shown, places, strict=True))
    nodes = [
        node | {"pos": list(where[node["id"]][:2]), "size": list(where[node["id"]][2:])}
        for node in sorted(graph["nodes"], key=lambda node: node["id"])
    ]
    groups = [
        {"id": number, "title": group.title, "bounding": list(frame), "color": STAGES[group.stage][2],
         "flags": {}}
        for number, (group, frame) in enumerate(zip(layout.groups, frames, strict=True), 1)
    ]
    # The page gives every graph a random id; a fixed one keeps the file the same from run to run.
    return graph | {"id": own_id(name), "nodes": nodes, "groups": groups}


def plain(prompt: Mapping[str, dict]) -> dict[str, dict]:
    """What the page sends to the queue, with the ids that the nodes have in the API twin."""
    def link(value: Any) -> Any:
        return [own(value[0]), value[1]] if isinstance(value, list) else value

    def own(key: str) -> str:
        return key.rpartition(":")[2]

    return {
        own(key): node | {"inputs": {name: link(value) for name, value in node["inputs"].items()}}
        for key, node in prompt.items()
    }


def all_nodes(graph: Graph) -> Iterator[dict[str, Any]]:
    """The nodes of a graph for people: those in view, then those in its subgraphs."""
    yield from graph["nodes"]
    for subgraph in graph.get("definitions", {}).get("subgraphs", ()):
        yield from subgraph["nodes"]
