"""The recipes of the help pages' pictures make graphs of the nodes as they are, and sheets with room for all.

Nothing is computed: gray pictures and a few words stand for what the graphs would show.
"""

from collections.abc import Iterator

import pytest
from PIL import Image

from dev import Failure
from dev.help_pictures.graph import AUTOGROW, DYNAMIC_COMBO, Graph, options_of
from dev.help_pictures.recipes import RECIPES
from dev.help_pictures.sheet import HEIGHT, WIDTH
from dev.help_pictures.studio import Shown, Studio

SOME, MOST_SLOTS = 4, 32
TEXT = "some words of a sentence"
MATCHED = "COMFY_MATCHTYPE_V3"


class AnyFile(Graph):
    """A graph whose files need not be there."""

    def choice(self, kind: str, name: str, words: str = "") -> str:
        try:
            return super().choice(kind, name, words)
        except Failure:
            return options_of(self.definitions[kind]["input"]["required"][name])[0]


class Pretending(Studio):
    """Runs nothing, but notes what is wrong with the graphs."""

    def __init__(self, definitions: dict):
        self.definitions, self.problems = definitions, []

    def graph(self) -> Graph:
        return AnyFile(self.definitions)

    def input_folder(self, name: str, write: object) -> str:
        return name

    def run(self, graph: Graph) -> Shown:
        for node in graph.nodes.values():
            self.problems += complaints(graph, node)
        gray = Image.new("RGB", (256, 256), "gray")
        return Shown(
            {key: [gray] * (count or SOME) for key, count in graph.shown.items()},
            dict.fromkeys(graph.told, TEXT),
        )


def slots(groups: dict, given: dict, before: str = "") -> Iterator[tuple[str, str, bool]]:
    """All inputs of a node with what is chosen in its lists: name, type, and whether one is required."""
    for group in ("required", "optional"):
        for name, (kind, *more) in groups.get(group, {}).items():
            kind = kind if isinstance(kind, str) else "COMBO"
            if kind == AUTOGROW:
                template = more[0]["template"]
                (inner, *_), = (slot for group in template["input"].values() for slot in group.values())
                for number in range(MOST_SLOTS):
                    yield f"{before}{name}.{template['prefix']}{number}", inner, False
                continue
            yield before + name, kind, group == "required"
            if kind == DYNAMIC_COMBO:
                for option in more[0]["options"]:
                    if option["key"] == given[before + name]:
                        yield from slots(option["inputs"], given, f"{before}{name}.")


def complaints(graph: Graph, node: dict) -> list[str]:
    """What ComfyUI would not take of a node, but for files that are not there."""
    kind, given = node["class_type"], node["inputs"]
    inputs = slots(graph.definitions[kind]["input"], given)
    known = {name: (wanted, needed) for name, wanted, needed in inputs}
    found = [f"{kind} lacks {name}" for name, (_, needed) in known.items() if needed and name not in given]
    found += [f"{kind} has no {name}" for name in given if name not in known]
    for name, value in given.items():
        if isinstance(value, list) and name in known:
            source = graph.definitions[graph.nodes[value[0]]["class_type"]]["output"][value[1]]
            wanted = known[name][0]
            if source not in wanted.split(",") and not {"*", MATCHED} & {source, wanted}:
                found.append(f"{kind} expected {wanted} as {name}, got {source}")
    return found


@pytest.fixture(scope="module")
def definitions(comfyui):
    return comfyui.object_info()


@pytest.mark.parametrize("node", sorted(RECIPES))
def test_recipes_fit_the_nodes_and_their_pictures_fit_the_page(definitions, node):
    studio = Pretending(definitions)
    picture = RECIPES[node](studio)
    assert studio.problems == []
    assert picture.width == WIDTH and picture.height <= HEIGHT


def test_every_node_of_the_pack_has_a_recipe(pack_nodes):
    assert set(pack_nodes) <= set(RECIPES)
