"""The recipes of the help pages' pictures make graphs of the nodes as they are, and sheets with room for all.

Nothing is computed: gray pictures and a few words stand for what the graphs would show.
"""

import pytest
from PIL import Image

from dev import Failure
from dev.help_pictures.graph import Graph, options_of
from dev.help_pictures.recipes import RECIPES
from dev.help_pictures.sheet import HEIGHT, WIDTH
from dev.help_pictures.studio import Shown, Studio
from tests.comfyui.definitions import faults

SOME = 4
TEXT = "some words of a sentence, as a report has them, and a second sentence"


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
        self.problems += faults(graph.nodes, self.definitions)
        gray = Image.new("RGB", (256, 256), "gray")
        return Shown(
            {key: [gray] * (count or SOME) for key, count in graph.shown.items()},
            dict.fromkeys(graph.told, TEXT),
        )


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
