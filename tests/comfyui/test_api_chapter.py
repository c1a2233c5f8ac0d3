"""The chapter "Through the API": its examples run as they stand, but for the port and the number of steps."""

import json
import re
import subprocess

import pytest
from PIL import Image

from dev import ROOT
from tests.comfyui.workflows import twin

CHAPTER = ROOT / "docs" / "api.md"
STEPS = {"piece_it_together": ("10", "5"), "a_folder_of_part_sets": ("10", "5")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the pack, with workflows that take fewer steps."""
    folder = tmp_path_factory.mktemp("pack")
    for name in ("pit", "queue_client"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    (folder / "workflows" / "api").mkdir(parents=True)
    for name, (sampler, prior) in STEPS.items():
        graph = twin(name)
        graph[sampler]["inputs"]["steps"] = graph[prior]["inputs"]["steps"] = 2
        graph[prior]["inputs"]["concepts"] = 1
        (folder / "workflows" / "api" / f"{name}.json").write_text(json.dumps(graph))
    return folder


@pytest.fixture(scope="module")
def said(comfyui, folder) -> dict[str, str]:
    """What the examples of each section print."""
    text = CHAPTER.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*?)$.*?^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    # In one shell, since later examples use what earlier ones have set.
    script = "\n".join(f"printf '\\n=== %s\\n' '{title}'\n{code}" for title, code in sections)
    script = script.replace("127.0.0.1:8188", f"127.0.0.1:{comfyui.port}")
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    printed = re.split(r"^=== (.*)$", done.stdout, flags=re.MULTILINE)
    return dict(zip(printed[1::2], printed[2::2], strict=True))


def test_the_server_tells_what_it_is_and_what_a_node_takes(said):
    system, end = json.JSONDecoder().raw_decode(said["Ask"].strip())
    node = json.loads(said["Ask"].strip()[end:])
    inputs = node["PiT_LoadPartSets"]["input"]["required"]
    assert "system" in system and set(inputs) == {"folder", "first", "most"}


def test_pictures_become_a_set(said, comfyui):
    names = {path.name for path in (comfyui.base / "input" / "my_ideas" / "ember").iterdir()}
    assert names == {"horns.png", "wings.png", "tail.png"}
    inputs = comfyui.object_info()["PiT_LoadPartSets"]["input"]["required"]
    assert "my_ideas" in inputs["folder"][1]["options"]


def test_a_graph_runs_and_its_pictures_come(said, folder):
    assert json.loads(said["Queue a graph"])["node_errors"] == {}
    (result,) = json.loads((folder / "result.json").read_text()).values()
    assert result["status"]["status_str"] == "success"
    (name,) = (folder / "names.txt").read_text().split()
    assert Image.open(folder / name).size == (256, 256)


def test_many_prompts_come_into_one_folder(said, folder):
    assert "8 of 8 done" in said["Many prompts, one server or several"]
    found = sorted(path.name for path in (folder / "night").glob("*.png"))
    assert found == [
        f"{name}_000{run}_12_01.png" for name in ("ember", "lagoon", "moss", "storm") for run in (1, 2)
    ]
    assert len({(folder / "night" / name).read_bytes() for name in found}) == 8


def test_cancelling_leaves_nothing(said, comfyui):
    queue = comfyui.get("/queue")
    assert said["Cancel, and free the memory"].strip() == ""
    assert queue["queue_running"] == queue["queue_pending"] == []
