"""Whether what comes through sockets is what a node takes, where ComfyUI does not look.

Its page compares the types of sockets, but it runs whatever a script links to a socket that takes several
types, or behind one.
"""
from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

from ...pit.files.records import Made

EMBEDDINGS, TOKENS = "image embeddings", "IP+ tokens"


def wanted_kinds(node: type[io.ComfyNode]) -> Mapping[str, type[Made]]:
    """Which inputs of a node, alone or several of them, take what is ours: what it declares as `takes`."""
    return getattr(node, "takes", {})


def check_kinds(
    node: type[io.ComfyNode], wanted: Mapping[str, type[Made]], given: Mapping[str, object]
) -> None:
    """Raise ValueError unless inputs, alone or several of them, are what the node takes."""
    for name, kind in wanted.items():
        value = given.get(name)
        for each in value.values() if isinstance(value, dict) else (value,):
            if each is not None and not isinstance(each, kind):
                title = node.define_schema().display_name
                raise ValueError(
                    f"{title} expected {described(kind)} in {name}, got {described(type(each))}"
                    f"{f' from {each.source}' if isinstance(each, Made) else ''}. {advice(kind, each)}"
                )


def described(kind: type) -> str:
    """What messages call what travels through a socket."""
    return getattr(kind, "what", f"a {kind.__name__}")


def advice(wanted: type[Made], got: object) -> str:
    """What to do about another kind."""
    if described(wanted) == TOKENS and described(type(got)) == EMBEDDINGS:
        return "Make tokens of them with Embedding to IP+ Tokens first."
    return f"Connect a node that gives {described(wanted)}."
