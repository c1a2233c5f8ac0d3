"""Graphs in API format that grow node by node, with what the nodes' definitions leave open filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dev import Failure

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
EMPTY = {"STRING": "", "BOOLEAN": False}
DYNAMIC_COMBO, AUTOGROW = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
CREATURES = "creature models"  # how files that come with the pack are called in lists

Definitions = Mapping[str, dict[str, Any]]
"""What ComfyUI tells of each node, by its id."""


@dataclass(frozen=True)
class Node:
    """A node of a graph; `node["name"]` is an output of it, and the node itself is the first one."""

    key: str
    outputs: tuple[str, ...]

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self.outputs:
            raise Failure(f"Expected an output among {', '.join(self.outputs)}, got {name}.")
        return [self.key, self.outputs.index(name)]


class Graph:
    """A graph that grows, and what of it is to be looked at.

    Attributes:
        nodes: in API format.
        shown: how many pictures are wanted, by the id of the node that shows them; 0 takes any number.
        told: the ids of the nodes that show texts.
    """

    def __init__(self, definitions: Definitions):
        self.definitions = definitions
        self.nodes: dict[str, dict[str, Any]] = {}
        self.shown: dict[str, int] = {}
        self.told: list[str] = []

    def add(self, kind: str, /, **inputs: Any) -> Node:
        """Add a node; inputs are values, nodes or outputs, with `__` for a dot, as in `parts__part0`.

        Raises:
            Failure: ComfyUI has no such node.
        """
        if kind not in self.definitions:
            raise Failure(f"Expected a node that ComfyUI has, got {kind}.")
        definition = self.definitions[kind]
        given = {name.replace("__", "."): as_link(value) for name, value in inputs.items()}
        key = str(len(self.nodes) + 1)
        self.nodes[key] = {"class_type": kind, "inputs": dict(defaults(definition["input"], given)) | given}
        return Node(key, tuple(definition["output_name"]))

    def batch(self, pictures: Sequence[Node | list[Any]]) -> Node | list[Any]:
        """Pictures of several nodes as one batch."""
        first, *others = pictures
        for each in others:
            first = self.add("ImageBatch", image1=first, image2=each)
        return first

    def show(self, pictures: Node | list[Any], count: int = 1) -> str:
        """Show so many pictures; returns by what they are found after the run."""
        return self.watch(self.add("PreviewImage", images=pictures), count)

    def watch(self, node: Node, count: int = 1) -> str:
        """Show what a node shows by itself; returns the same."""
        self.shown[node.key] = count
        return node.key

    def show_masks(self, masks: Node | list[Any], count: int = 1) -> str:
        """The same for masks, which become white on black."""
        return self.show(self.add("MaskToImage", mask=masks), count)

    def tell(self, text: Node | list[Any]) -> str:
        """Show a text; returns by what it is found after the run."""
        key = self.add("PreviewAny", source=text).key
        self.told.append(key)
        return key

    def choice(self, kind: str, name: str, words: str = "") -> str:
        """What a list of a node offers of the creature models, with these words in its name.

        Raises:
            Failure: there is no such file.
        """
        offered = options_of(self.definitions[kind]["input"]["required"][name])
        for option in offered:
            if option.startswith(CREATURES) and words in option:
                return option
        wanted = f"{CREATURES}: {words}"
        raise Failure(f"Expected {wanted} in the list {name} of {kind}, got {', '.join(offered)}.")


def as_link(value: Any) -> Any:
    """A node as its first output, and a value as it is."""
    return [value.key, 0] if isinstance(value, Node) else value


def options_of(entry: list[Any]) -> list[str]:
    """What a list offers, by its definition, in the forms of old and new nodes."""
    kind, more = entry[0], entry[1] if len(entry) > 1 else {}
    options = kind if isinstance(kind, list) else more.get("options", [])
    return [each["key"] if isinstance(each, dict) else each for each in options]


def defaults(
    groups: Mapping[str, Any], given: Mapping[str, Any], before: str = ""
) -> Iterator[tuple[str, Any]]:
    """Values of required widgets that are not given, and of what a chosen option asks for."""
    for name, entry in groups.get("required", {}).items():
        path, (kind, more) = f"{before}{name}", (entry[0], entry[1] if len(entry) > 1 else {})
        if kind == DYNAMIC_COMBO:
            chosen = given.get(path, options_of(entry)[0])
            yield path, chosen
            (option,) = (each for each in more["options"] if each["key"] == chosen)
            yield from defaults(option["inputs"], given, f"{path}.")
        elif path in given:
            continue
        elif isinstance(kind, list) or kind in WIDGETS:
            offered = options_of(entry)
            yield path, more.get("default", offered[0] if offered else EMPTY.get(str(kind), 0))
