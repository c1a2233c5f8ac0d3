"""Whether what comes through sockets is what a node takes, where ComfyUI does not look.

Its page compares the types of sockets, but it runs whatever a script links to a socket that takes several
types, or behind one.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from comfy_api.latest import io

from ...pit.files.records import Made

Kinds = tuple[type[Made], ...]
EMBEDDINGS, TOKENS = "image embeddings", "IP+ tokens"


def wanted_kinds(execute: Callable[..., object]) -> dict[str, Kinds]:
    """Which inputs take what is ours, by the annotations, such as `Tokens | None` or `dict[str, Tokens]`."""
    known = execute.__globals__
    found = {
        name: tuple(known[word] for word in re.findall(r"\w+", str(hint)) if is_kind(known.get(word)))
        for name, hint in execute.__annotations__.items() if name != "return"
    }
    return {name: kinds for name, kinds in found.items() if kinds}


def is_kind(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Made)


def check_kinds(
    node: type[io.ComfyNode], wanted: Mapping[str, Kinds], given: Mapping[str, object]
) -> None:
    """Raise ValueError unless inputs, alone or several of them, are what the node takes."""
    for name, kinds in wanted.items():
        value = given.get(name)
        for each in value.values() if isinstance(value, dict) else (value,):
            if each is not None and not isinstance(each, kinds):
                title, kind = node.define_schema().display_name, kinds[0]
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
