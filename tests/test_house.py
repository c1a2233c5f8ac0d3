"""The rules of the house, as docs/architecture.md tells them: who may know of whom, and who opens files."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dev import ROOT

# From the top floor down: a room may know of those below it. Systems share a floor, strangers to each other.
SYSTEMS = {"piece_it_together", "pops", "object_insertion", "partcraft", "parts2whole"}
FLOORS = (
    {""}, {"commands"}, {"demo"}, SYSTEMS, {"concepts"}, {"ip_adapter"}, {"training"}, {"flow"}, {"encoders"},
    {"files"},
)
ROOF = {"pit", "pit.__main__", "pit.public", "pit.systems"}
LEAVES = {
    "pit.unet", "pit.images", "pit.cutouts", "pit.number_lists", "pit.charts", "pit.messages", "pit.packages",
}
# Functions and modules that open weight files, by their full names.
OPENERS = re.compile(
    r"(torch|torch\.jit|torch\.serialization|numpy|pickle|joblib|dill)\.(load|save|loads|dumps?|savez)$"
    r"|safetensors\.|torch\.(jit|serialization)$|pickle$|accelerate\.utils\.(load|save)_"
    r"|comfy\.utils\.(load_torch_file|save_torch_file)$"
)
# ComfyUI and what it has loaded by itself when it loads us.
LIGHT = {
    "PIL", "comfy", "comfy_api", "comfy_execution", "folder_paths", "numpy", "safetensors", "scipy", "server",
    "torch", "yaml",
}
# Of these rooms of nodes/, the first may know of the second.
ROOMS_THAT_KNOW = {
    ("creatures", "piece_it_together"), ("creatures", "object_insertion"), ("creatures", "parts2whole"),
}

Graph = Mapping[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_type_checkers(tree: ast.Module) -> set[ast.AST]:
    """All that stands below `if TYPE_CHECKING` itself, which no running program imports."""
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If))
    return {
        inner for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body for inner in ast.walk(statement)
    }


def inside_functions(tree: ast.Module) -> set[ast.AST]:
    """All that runs only when somebody calls it."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {inner for function in functions for inner in ast.walk(function)}


def imports_of(name: str, is_package: bool, source: str, known: set[str], at_start: bool = False) -> set[str]:
    """Modules of the pack that a module imports, at its top or, but for `at_start`, inside a function."""
    tree, found = ast.parse(source), set()
    unseen = for_type_checkers(tree) | (inside_functions(tree) if at_start else set())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in unseen:
            base = name.split(".") if is_package else name.split(".")[:-1]
            base = base[:len(base) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in known else ".".join(base))
    return found - {name}


def graph_of(*tops: str, at_start: bool = False) -> dict[str, set[str]]:
    paths = {module_name(path): path for path in python_files(*tops)}
    return {
        name: imports_of(
            name, path.name == "__init__.py", path.read_text(encoding="utf-8"), set(paths), at_start
        )
        for name, path in paths.items()
    }


def packages_of(source: str) -> set[str]:
    """Other packages that a module imports at its top, but for Python's own."""
    tree, found = ast.parse(source), set()
    unseen = for_type_checkers(tree) | inside_functions(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in unseen:
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node not in unseen:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def loaded_with(module: str, graph: Graph) -> set[str]:
    """A module and all that its import imports, with the packages around them."""
    loaded, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name and name not in loaded:
            loaded.add(name)
            waiting += [name.rpartition(".")[0], *graph.get(name, ())]
    return loaded


def floor(module: str) -> int:
    if module in LEAVES:
        return len(FLOORS)
    room = "" if module in ROOF else module.split(".")[1]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def climbs(graph: Graph) -> list[str]:
    """Imports that do not point downwards, or lead from one system into another."""
    def allowed(module: str, other: str) -> bool:
        same_room = module.split(".")[:2] == other.split(".")[:2]
        if module in ROOF or same_room:
            return True
        return floor(other) > floor(module) or floor(module) == floor(other) == len(FLOORS)

    return [
        f"{module} -> {other}" for module, others in graph.items() for other in sorted(others)
        if other.startswith("pit") and not allowed(module, other)
    ]


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that import each other, directly or by others (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    waiting: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        waiting.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in index:
                visit(other)
            if other in waiting:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            group = waiting[waiting.index(module):]
            del waiting[waiting.index(module):]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def opened_files(source: str) -> list[int]:
    """The lines that name a function which opens weight files, under whatever name it was imported."""
    tree, full = ast.parse(source), {}
    unseen = for_type_checkers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level and node not in unseen:
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            if OPENERS.match(f"{full.get(first, first)}{dot}{rest}"):
                found.add(node.lineno)
    return sorted(found)


def imported_by_name(source: str) -> list[int]:
    """The lines that import a module by a text, which no rule can follow."""
    hidden = ("importlib.import_module", "import_module", "__import__", "pkgutil.resolve_name")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if ast.unparse(call.func) in hidden]


def python_files(*tops: str) -> Iterator[Path]:
    for top in tops:
        yield from sorted((ROOT / top).rglob("*.py"))


def test_imports_of_the_engine_point_downwards():
    assert climbs(graph_of("pit")) == []


def test_no_imports_run_in_a_circle():
    assert circles(graph_of("pit")) == []
    assert circles(graph_of("nodes")) == []


def test_rooms_of_nodes_know_the_bridge_and_not_each_other():
    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    offenders = [
        f"{module} -> {other}" for module, others in graph_of("nodes").items() for other in sorted(others)
        if room(module) and other.startswith("nodes.") and room(other) not in (room(module), "bridge")
        and (room(module), room(other)) not in ROOMS_THAT_KNOW
    ]
    assert offenders == []


def test_only_one_room_opens_weight_files():
    offenders = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files("pit", "nodes") if path.parent != ROOT / "pit" / "files"
        for line in opened_files(path.read_text(encoding="utf-8"))
    ]
    assert offenders == []


def test_below_the_roof_no_module_is_imported_by_a_text():
    offenders = [
        f"{path.relative_to(ROOT)}:{line}" for path in python_files("pit", "nodes")
        if module_name(path) not in ROOF | {"pit.packages"}  # which only looks whether one is there
        for line in imported_by_name(path.read_text(encoding="utf-8"))
    ]
    assert offenders == []


def test_comfyui_loads_only_light_packages_with_the_pack():
    """Its start must not wait; what takes longer is imported by the functions that need it."""
    paths = {module_name(path): path for path in python_files("nodes", "pit")}
    offenders = [
        f"{name}: {package}" for name in sorted(loaded_with("nodes", graph_of("nodes", "pit", at_start=True)))
        for package in sorted(packages_of(paths[name].read_text(encoding="utf-8")) - LIGHT)
    ]
    assert offenders == []


@pytest.mark.parametrize("word", ["creature", "miniature", "ip-lora"])
def test_what_is_shared_says_no_word_of_what_stands_above(word):
    shared = python_files("pit/files", "pit/flow", "pit/ip_adapter", "pit/concepts", "pit/training")
    offenders = [path for path in shared if word in path.read_text(encoding="utf-8").lower()]
    assert [str(path.relative_to(ROOT)) for path in offenders] == []


def test_the_rules_are_sharp():
    graph = {
        "pit.files.weights": {"pit.training.trainer"}, "pit.training.trainer": {"pit.files.weights"},
        "pit.pops.sample": {"pit.piece_it_together.prior"}, "pit.piece_it_together.prior": {"pit.flow.path"},
        "pit.commands.train_pops": {"pit.pops.sample"}, "pit.flow.path": {"pit.images"},
    }
    assert climbs(graph) == [
        "pit.files.weights -> pit.training.trainer", "pit.pops.sample -> pit.piece_it_together.prior",
    ]
    assert circles(graph) == [["pit.files.weights", "pit.training.trainer"]]
    assert opened_files(
        "import torch as t\nt.load(a)\nfrom safetensors import safe_open\nsafe_open(b)\nload(c)\n"
        "from torch import load as read\npartial(read, d)\nimport safetensors.torch\n"
        "safetensors.torch.load_file(e)\nt.jit.load(f)\nimport numpy as np\nnp.load(g)\njson.load(h)"
    ) == [2, 4, 7, 9, 10, 12]
    assert imported_by_name("import importlib\nimportlib.import_module(a)\n__import__(b)") == [2, 3]
    source = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import c\n"
        "def f():\n    from ..training import trainer"
    )
    assert imports_of("pit.files.a", False, source, {"pit.training.trainer"}) == {"pit.training.trainer"}
    source += "\nimport numpy, torch.nn\nimport os\nfrom .c import d\ndef g():\n    import diffusers\n"
    assert imports_of("pit.files.a", False, source, {"pit.files.c"}, at_start=True) == {"pit.files.c"}
    assert packages_of(source) == {"numpy", "torch"}
    assert loaded_with("pit.flow.path", graph) == {"pit.flow.path", "pit.flow", "pit.images", "pit"}
