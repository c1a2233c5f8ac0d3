"""A workflow in ComfyUI's API format: read, checked, and changed for each prompt."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import Problem

Graph = dict[str, dict[str, Any]]
Place = tuple[str, str]  # a node's id and one of its inputs
SEEDS = ("seed", "noise_seed")
LARGEST_SEED = 2**64
SETS_NODE = "PiT_LoadPartSets"


def read_workflow(path: Path) -> Graph:
    """The graph in a file. Raises Problem if there is none in API format."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"Expected a workflow in {path}, but it cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise Problem(f"Expected a workflow as JSON in {path}, got something else ({error}).") from error
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise Problem(
            f"Expected a workflow in API format in {path}, got one as the page saves it. Open it in ComfyUI "
            "and choose Export (API) in its menu."
        )
    if not isinstance(graph, dict) or not graph or not all(map(_is_node, graph.values())):
        raise Problem(
            f"Expected a workflow in API format in {path}: nodes by their ids, each with class_type and "
            "inputs. Open it in ComfyUI and choose Export (API) in its menu."
        )
    return graph


def _is_node(node: object) -> bool:
    return (
        isinstance(node, dict) and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    )


def title_of(node: dict[str, Any]) -> str:
    """The title of a node in the page."""
    return (node.get("_meta") or {}).get("title") or node["class_type"]


def find_input(graph: Graph, text: str) -> Place:
    """The input that `NODE.INPUT` names, the node by id, title or type. Raises Problem if there is none."""
    for node, name in _splits(text):
        keys = _called(graph, node)
        if len(keys) > 1:
            raise Problem(
                f"Expected one node called {node!r}, got the nodes {', '.join(keys)}. Name one by its id."
            )
        if keys:
            return keys[0], _checked_input(graph[keys[0]], keys[0], name)
    known = ", ".join(f"{key} ({title_of(node)})" for key, node in graph.items())
    raise Problem(f"Expected NODE.INPUT with a node of the workflow, got {text!r}. It has: {known}.")


def _splits(text: str) -> Iterator[tuple[str, str]]:
    # Titles and names of inputs may both have dots.
    for place, letter in enumerate(text):
        if letter == ".":
            yield text[:place], text[place + 1:]


def _called(graph: Graph, name: str) -> list[str]:
    if name in graph:
        return [name]
    titled = [key for key, node in graph.items() if title_of(node) == name]
    return titled or [key for key, node in graph.items() if node["class_type"] == name]


def _checked_input(node: dict[str, Any], key: str, name: str) -> str:
    if name not in node["inputs"]:
        known = ", ".join(node["inputs"]) or "none"
        raise Problem(
            f"Expected an input of node {key} ({title_of(node)}), got {name!r}. Its inputs are: {known}."
        )
    return name


def with_settings(graph: Graph, settings: Iterable[str]) -> tuple[Graph, list[Place]]:
    """A copy with the values of `NODE.INPUT=VALUE`, and the inputs that were set.

    Raises Problem for an unknown input, and for a value of another type than the one before.
    """
    graph, places = copy.deepcopy(graph), []
    for setting in settings:
        where, equals, text = setting.partition("=")
        if not equals:
            raise Problem(f"Expected NODE.INPUT=VALUE, got {setting!r}.")
        node, name = find_input(graph, where)
        graph[node]["inputs"][name] = _typed(text, graph[node]["inputs"][name], where)
        places.append((node, name))
    return graph, places


def _typed(text: str, before: object, where: str) -> object:
    if isinstance(before, str):
        return text
    if isinstance(before, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise Problem(f"Expected true or false for {where}, got {text!r}.")
    if isinstance(before, int | float):
        return _number(text, where)
    try:  # a link, or a value of some node's own
        return json.loads(text)
    except ValueError:
        return text


def _number(text: str, where: str) -> int | float:
    # The page writes 1 for 1.0: a whole number tells nothing about the type of the input.
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    raise Problem(f"Expected a number for {where}, got {text!r}.")


def varied_inputs(graph: Graph, given: Iterable[str], fixed: Iterable[Place], count: int) -> list[Place]:
    """The inputs that count up from run to run: those given, or else all seeds that are not fixed.

    Raises Problem for one that holds no whole number, and for none at all where there is more than one run.
    """
    places, fixed = [find_input(graph, each) for each in given], set(fixed)
    for node, name in places:
        if type(graph[node]["inputs"][name]) is not int:
            raise Problem(
                f"Expected a whole number to count up in {node}.{name} ({title_of(graph[node])}), got "
                f"{graph[node]['inputs'][name]!r}."
            )
    if not places:
        places = [
            (key, name) for key, node in graph.items() for name in SEEDS
            if type(node["inputs"].get(name)) is int and (key, name) not in fixed
        ]
    if count > 1 and not places:
        raise Problem(
            "Expected a seed that changes from run to run, got none in the workflow. Name an input that "
            "counts up with --vary NODE.INPUT."
        )
    return places


def graph_of(graph: Graph, varied: Iterable[Place], run: int, folder: str | None) -> Graph:
    """The graph of one run, counted from 0, for the set in this folder of the server's input."""
    graph = copy.deepcopy(graph)
    for node, name in varied:
        graph[node]["inputs"][name] = (graph[node]["inputs"][name] + run) % LARGEST_SEED
    if folder is not None:
        for node in sets_nodes(graph):
            node["inputs"] |= {"folder": folder, "first": 1, "most": 1}
    return graph


def sets_nodes(graph: Graph) -> list[dict[str, Any]]:
    """The nodes that read a folder of part sets."""
    return [node for node in graph.values() if node["class_type"] == SETS_NODE]


def fingerprint(graph: Graph, varied: Iterable[Place]) -> str:
    """The same for the same work."""
    text = json.dumps([graph, sorted(varied)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
