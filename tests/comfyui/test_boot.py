"""The pack arrives in ComfyUI quietly and complete."""

import json
import re
import subprocess
import sys

from dev import ROOT
from dev.comfyui import PACK_NAME, RELEASE


def boot_lines(server) -> list[str]:
    """What a server printed until it was up, without blank lines, its own folder, and numbers."""
    boot = server.log_text().partition("Starting server")[0].replace(str(server.base), "BASE")
    lines = [re.sub(r"\d+(\.\d+)*", "N", line.replace("[INFO]", "")).strip() for line in boot.splitlines()]
    return [line for line in lines if line]


def test_the_pack_adds_only_its_import_time_to_the_log(comfyui, bare_comfyui):
    known = boot_lines(bare_comfyui)
    added = [line for line in boot_lines(comfyui) if line not in known]
    assert added == [f"N seconds: BASE/custom_nodes/{PACK_NAME}"]


def test_the_nodes_are_there_with_our_prefix(pack_nodes):
    assert pack_nodes
    assert [key for key in pack_nodes if not key.startswith("PiT_")] == []


def test_every_node_says_what_it_is(pack_nodes):
    for key, node in pack_nodes.items():
        assert node["display_name"] and node["display_name"] != key, key
        assert node["description"].strip(), key
        assert node["category"].strip(), key


def test_every_node_has_a_help_page(comfyui, pack_nodes):
    for key in pack_nodes:
        page = comfyui.fetch(f"/extensions/{PACK_NAME}/docs/{key}.md").decode()
        assert page.startswith("# "), key


def test_the_picture_of_every_help_page_is_served(comfyui, pack_nodes):
    for key in pack_nodes:
        picture = comfyui.fetch(f"/extensions/{PACK_NAME}/docs/pictures/{key}.jpg")
        assert picture.startswith(b"\xff\xd8"), key


def test_comfyui_reads_our_pyproject(comfyui):
    code = (
        "import sys; from comfy_config.config_parser import extract_node_configuration as extract;"
        "config = extract(sys.argv[1]);"
        "print(config.project.name, config.project.supported_comfyui_version, config.tool_comfy.publisher_id)"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    output = subprocess.run(command, cwd=comfyui.comfyui, capture_output=True, text=True, check=True).stdout
    assert output.split() == [PACK_NAME, f">={RELEASE}", PACK_NAME]


def test_the_page_offers_every_node(page, pack_nodes):
    registered = json.loads(page.evaluate("JSON.stringify(Object.keys(LiteGraph.registered_node_types))"))
    assert set(pack_nodes) <= set(registered)
