"""Fold nodes of a graph into a subgraph, as ComfyUI saves it, and write one as a blueprint.

Only the saved form changes: what the page sends to the queue stays the same, but for the ids of the nodes
inside, before which it puts that of the subgraph's own node.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INPUT, OUTPUT = -10, -20  # of the subgraph itself, as ComfyUI numbers them
CONTROLS = ("fixed", "randomize", "increment", "decrement")
ROW, GAP = 20, 60  # of slots, and between nodes inside
WIDTH = 320  # of nodes inside

Graph = dict[str, Any]
Link = tuple[int, int, int, int, int, str]
"""Number, node and slot that it leaves, node and slot that it reaches, type."""


@dataclass(frozen=True)
class Folded:
    """Nodes of an API twin that are one node, a subgraph, in the graph for people.

    Attributes:
        title: what is written on it; a blueprint with this title is the same subgraph.
        nodes: ids, separated by spaces, in the order in which their inputs become inputs of the subgraph.
        shown: its widgets, as in `prompt=7.text steps=10.steps`.
        sockets: names for its inputs, as in `parts=4.parts.part0`; one that nothing is connected to stays
            open for the user. Others have the name of the input inside.
        outputs: names for its outputs, as in `image=11.0`; others have the name of the output inside.
        height: at least this, for pictures that it shows.
    """

    title: str
    nodes: str
    shown: str = ""
    sockets: str = ""
    outputs: str = ""
    height: int = 0

    @property
    def ids(self) -> list[int]:
        return [int(each) for each in self.nodes.split()]


def named(spec: str) -> dict[tuple[int, str], str]:
    """The names by node and slot, of `name=node.slot` separated by spaces."""
    found = {}
    for each in spec.split():
        name, _, place = each.partition("=")
        node, _, slot = place.partition(".")
        found[int(node), slot] = name
    return found


def own_id(*names: str) -> str:
    """An id that is the same from run to run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("piece-it-together", *names))))


def widget_values(node: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a saved node by the names of its widgets, without what happens to a seed after a run."""
    values, found = iter(node.get("widgets_values", ())), {}
    rest = list(values)
    for each in node["inputs"]:
        if "widget" in each and rest:
            found[each["name"]] = rest.pop(0)
            if each["name"].endswith("seed") and rest and rest[0] in CONTROLS:
                rest.pop(0)
    return found


def seed_control(node: Mapping[str, Any]) -> str | None:
    """What happens to the seed of a saved node after a run; None for a node without a seed."""
    return next((each for each in node.get("widgets_values", ()) if each in CONTROLS), None)


def fold(graph: Graph, folded: Folded, number: int, where: str) -> Graph:
    """The graph with some of its nodes inside a subgraph.

    Args:
        number: the id of the node that stands for them.
        where: a name of the graph, which makes the ids differ from those of other graphs.
    """
    return Folding(graph, folded, number, own_id(where, folded.title, folded.nodes)).result()


@dataclass
class Socket:
    """An input of a subgraph.

    Attributes:
        targets: nodes and slots inside.
        link: what comes in.
        value: of its widget, if it has one. A connected one has a value, too, in the order of the others.
    """

    name: str
    type: str
    targets: list[tuple[int, int]]
    link: Link | None
    value: tuple[Any, ...]

    def shares(self, link: Link | None) -> bool:
        """Whether another link comes from the same output."""
        return self.link is not None and link is not None and self.link[1:3] == link[1:3]


def free_name(wanted: str, sockets: Sequence[Socket]) -> str:
    """The name, with a number if it is taken."""
    taken = {each.name for each in sockets}
    return next(name for name in (wanted, *(f"{wanted}_{n}" for n in range(2, 99))) if name not in taken)


def slot_of(node: Mapping[str, Any], name: str) -> int:
    """Which of the inputs of a node has this name."""
    return [each["name"] for each in node["inputs"]].index(name)


class Folding:
    """One call of `fold`: the links that lead in and out, and what becomes of them."""

    def __init__(self, graph: Graph, folded: Folded, number: int, subgraph_id: str):
        self.graph, self.folded, self.number, self.subgraph_id = graph, folded, number, subgraph_id
        self.nodes = {node["id"]: node for node in graph["nodes"]}
        self.inner = [self.nodes[each] for each in folded.ids]
        links: list[Link] = [tuple(each) for each in graph["links"]]
        inside = set(folded.ids)
        self.within = [each for each in links if each[1] in inside and each[3] in inside]
        self.coming = [each for each in links if each[1] not in inside and each[3] in inside]
        self.going = [each for each in links if each[1] in inside and each[3] not in inside]
        self.without = [each for each in links if each[1] not in inside and each[3] not in inside]
        self.inputs = self._find_inputs()
        self.outputs = self._find_outputs()

    def _find_inputs(self) -> list[Socket]:
        """First what comes in, in the order of the nodes, then the widgets that are shown."""
        names = named(self.folded.sockets)
        coming = {(each[3], each[4]): each for each in self.coming}
        sockets: list[Socket] = []
        for node in self.inner:
            for slot, each in enumerate(node["inputs"]):
                link, name = coming.get((node["id"], slot)), names.get((node["id"], each["name"]))
                known = next((one for one in sockets if one.shares(link)), None)
                if known:
                    known.targets.append((node["id"], slot))
                elif link or name:
                    given = name or each["name"].rpartition(".")[2]
                    sockets.append(self._socket(node, slot, free_name(given, sockets), link))
        return sockets + [
            self._socket(self.nodes[node], slot_of(self.nodes[node], widget), name)
            for (node, widget), name in named(self.folded.shown).items()
        ]

    def _socket(self, node: Mapping[str, Any], slot: int, name: str, link: Link | None = None) -> Socket:
        given = node["inputs"][slot]
        value = (widget_values(node)[given["name"]],) if "widget" in given else ()
        return Socket(name, given["type"], [(node["id"], slot)], link, value)

    def _find_outputs(self) -> list[dict[str, Any]]:
        names = named(self.folded.outputs)
        places = dict.fromkeys((each[1], each[2]) for each in self.going)
        for node, slot in names:
            places.setdefault((node, int(slot)))
        found = []
        for node, slot in sorted(places, key=lambda place: (self.folded.ids.index(place[0]), place[1])):
            output = self.nodes[node]["outputs"][slot]
            name = names.get((node, str(slot))) or output["name"].lower()
            found.append({"name": name, "type": output["type"], "place": (node, slot)})
        return found

    def result(self) -> Graph:
        subgraph = self._subgraph()
        kept = [node for node in self.graph["nodes"] if node["id"] not in self.folded.ids]
        links = [*self.without, *self._links_in(), *self._links_out()]
        definitions = [*self.graph.get("definitions", {}).get("subgraphs", ()), subgraph]
        return relinked(self.graph | {
            "nodes": [*kept, self._outer()], "links": [list(each) for each in sorted(links)],
            "last_node_id": max(self.number, self.graph["last_node_id"]),
            "definitions": {"subgraphs": definitions},
        })

    def _links_in(self) -> Iterable[Link]:
        for slot, each in enumerate(self.inputs):
            if each.link:
                number, node, output, *_, kind = each.link
                yield number, node, output, self.number, slot, kind

    def _links_out(self) -> Iterable[Link]:
        places = [each["place"] for each in self.outputs]
        for number, node, output, target, slot, kind in self.going:
            yield number, self.number, places.index((node, output)), target, slot, kind

    def _outer(self) -> dict[str, Any]:
        """The node that stands for the subgraph."""
        inputs = [
            {"name": each.name, "type": each.type, "link": None}
            | ({"widget": {"name": each.name}} if each.value else {})
            for each in self.inputs
        ]
        return {
            "id": self.number, "type": self.subgraph_id, "pos": [0, 0], "size": [WIDTH, 0], "flags": {},
            "order": 0, "mode": 0, "inputs": inputs,
            "outputs": [{"name": each["name"], "type": each["type"], "links": []} for each in self.outputs],
            "title": self.folded.title, "properties": {},
            "widgets_values": [value for each in self.inputs for value in each.value],
        }

    def _subgraph(self) -> dict[str, Any]:
        """The definition of the subgraph."""
        links = self._inner_links()
        inner = relinked({"nodes": self.inner, "links": links})["nodes"]
        right = max(node["pos"][0] + node["size"][0] for node in inner) + 2 * GAP
        return {
            "id": self.subgraph_id, "version": 1, "revision": 0, "config": {}, "name": self.folded.title,
            "state": {
                "lastGroupId": 0, "lastNodeId": max(self.folded.ids), "lastLinkId": len(links),
                "lastRerouteId": 0,
            },
            "inputNode": {"id": INPUT, "bounding": [-240, 0, 120, 40 + ROW * len(self.inputs)]},
            "outputNode": {"id": OUTPUT, "bounding": [right, 0, 120, 40 + ROW * len(self.outputs)]},
            "inputs": self._ends([(each.name, each.type) for each in self.inputs], links, (INPUT, 1), -140),
            "outputs": self._ends(
                [(each["name"], each["type"]) for each in self.outputs], links, (OUTPUT, 3), right + 20,
            ),
            "widgets": [], "nodes": inner, "groups": [], "links": [as_object(each) for each in links],
            "extra": {},
        }

    def _inner_links(self) -> list[Link]:
        """Numbered from 1: those between nodes inside, then those from the inputs and to the outputs."""
        links = [each[1:] for each in self.within]
        for slot, each in enumerate(self.inputs):
            links += [(INPUT, slot, *target, each.type) for target in each.targets]
        for slot, each in enumerate(self.outputs):
            links.append((*each["place"], OUTPUT, slot, each["type"]))
        return [(number, *each) for number, each in enumerate(links, 1)]

    def _ends(
        self, slots: Sequence[tuple[str, str]], links: list[Link], end: tuple[int, int], left: int,
    ) -> list[dict[str, Any]]:
        """The inputs or outputs of the subgraph; `end` is its number, and where in a link it stands."""
        number, place = end
        return [
            {
                "id": own_id(self.subgraph_id, str(number), name), "name": name, "type": kind,
                "pos": [left, ROW * slot],
                "linkIds": [link[0] for link in links if link[place:place + 2] == (number, slot)],
            }
            for slot, (name, kind) in enumerate(slots)
        ]


def as_object(link: Link) -> dict[str, Any]:
    """A link as it is saved inside of a subgraph."""
    number, origin, output, target, slot, kind = link
    return {
        "id": number, "origin_id": origin, "origin_slot": output, "target_id": target, "target_slot": slot,
        "type": kind,
    }


def relinked(graph: Graph) -> Graph:
    """The graph with the numbers of its links in its nodes."""
    into = {(each[3], each[4]): each[0] for each in graph["links"]}
    nodes = []
    for node in graph["nodes"]:
        inputs = [
            each | {"link": into.get((node["id"], slot))} for slot, each in enumerate(node.get("inputs", ()))
        ]
        outputs = [
            each | {"links": [it[0] for it in graph["links"] if tuple(it[1:3]) == (node["id"], slot)]}
            for slot, each in enumerate(node.get("outputs", ()))
        ]
        nodes.append(node | {"inputs": inputs, "outputs": outputs})
    return graph | {"nodes": nodes}
