"""How templates open in the page, at 1600 x 1000, with classic nodes and with Nodes 2.0."""

import itertools

import pytest

from dev.templates import TITLES
from tests.comfyui.conftest import new_page
from tests.comfyui.test_template_rules import READABLE, TITLE_BAR, contains, overlap
from tests.comfyui.workflows import NAMES, template

OPEN = """([graph, title]) =>
    window.app.loadGraphData(graph, true, true, title, { openSource: "template" })"""
SETTLED = """([count, elements]) => window.app.graph.nodes.length === count
    && document.querySelectorAll("[data-node-id]").length === elements"""
FRAMES = 30  # until the page has adapted what it shows
WAIT = """count => new Promise((done) => {
    const step = () => (count-- ? requestAnimationFrame(step) : done())
    step()
})"""
SEEN = """bar => {
    const { canvas, graph } = window.app
    const size = ({ id, size }) => {
        const element = document.querySelector(`[data-node-id="${id}"]`)
        const { offsetWidth, offsetHeight } = element ?? { offsetWidth: 0, offsetHeight: 0 }
        return [Math.max(size[0], offsetWidth), Math.max(size[1], offsetHeight - bar)]
    }
    const box = ([left, top], [width, height], above) => [left, top - above, left + width, top + height]
    const notes = [...document.querySelectorAll(".comfy-markdown")]
    return {
        scale: canvas.ds.scale,
        nodes: graph.nodes.map((node) => box(node.pos, size(node), bar)),
        groups: graph.groups.map((group) => box(group.pos, group.size, 0)),
        cutOff: notes.filter((note) => {
            const text = note.querySelector(".ProseMirror") ?? note
            return text.scrollHeight > text.clientHeight + 2
        }).map((note) => note.innerText),
    }
}"""


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes_2"])
def view(request, chromium, comfyui):
    """The page at the size of a small screen, and how many elements a node has in it."""
    try:
        with new_page(chromium, comfyui, Comfy__VueNodes__Enabled=request.param) as page:
            page.set_viewport_size({"width": 1600, "height": 1000})
            yield page, int(request.param)
    finally:
        comfyui.post("/settings", {"Comfy.VueNodes.Enabled": False})


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_readable_with_nothing_over_something_else(view, name):
    page, elements = view
    graph = template(name)
    page.evaluate(OPEN, [graph, TITLES[name]])
    count = len(graph["nodes"])
    page.wait_for_function(SETTLED, arg=[count, count * elements])
    page.evaluate(WAIT, FRAMES)
    seen = page.evaluate(SEEN, TITLE_BAR)
    assert seen["scale"] >= READABLE
    assert seen["cutOff"] == []
    assert [pair for pair in itertools.combinations(seen["nodes"], 2) if overlap(*pair)] == []
    for node in seen["nodes"]:
        assert len([group for group in seen["groups"] if contains(group, node)]) == 1
