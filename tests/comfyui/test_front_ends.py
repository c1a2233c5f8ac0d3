"""A template in ComfyUI's own front end and in the newest, with classic nodes and with Nodes 2.0."""

import pytest

from dev.comfyui import ensure_newest_front_end, make_base
from dev.server import ComfyServer
from tests.comfyui.conftest import new_page
from tests.comfyui.pages import images_of, open_workflow, press_run, set_value, wait_for
from tests.comfyui.workflows import template

NAME = "piece_it_together"
FEW = [("5", "concepts", 2), ("10", "steps", 4)]
ELEMENTS = """count => document.querySelectorAll("[data-node-id]").length === count"""  # none in a canvas


@pytest.fixture(scope="module")
def newest_comfyui(comfyui_folder, tmp_path_factory) -> ComfyServer:
    """A running ComfyUI with the newest front end."""
    folder, front_end = tmp_path_factory.mktemp("newest"), ensure_newest_front_end()
    base, log = make_base(folder / "base"), folder / "server.log"
    with ComfyServer(comfyui_folder, base, log, front_end=front_end) as server:
        yield server


@pytest.mark.parametrize("server, nodes_2", [
    ("comfyui", True), ("newest_comfyui", False), ("newest_comfyui", True),
])
def test_a_template_is_opened_and_runs(chromium, request, server, nodes_2):
    server = request.getfixturevalue(server)
    nodes = template(NAME)["nodes"]
    try:
        with new_page(chromium, server, Comfy__VueNodes__Enabled=nodes_2) as page:
            open_workflow(page, NAME)
            page.wait_for_function(ELEMENTS, arg=len(nodes) if nodes_2 else 0)
            for node, widget, value in FEW:
                set_value(page, node, widget, value)
            press_run(page)
            wait_for(page, "execution_success")
            images = images_of(page, "12")
    finally:
        server.post("/settings", {"Comfy.VueNodes.Enabled": False})
    assert len({server.view(image) for image in images}) == 2
