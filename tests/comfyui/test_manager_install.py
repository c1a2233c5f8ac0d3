"""The published archive in a clean ComfyUI, installed as ComfyUI-Manager installs it."""

import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dev import ROOT
from dev.archive import write_archive
from dev.comfyui import PACK_NAME
from dev.server import ComfyServer
from tests.comfyui.workflows import twin

SIGNATURES = Path(__file__).parent / "nodes" / "signatures.json"


def install(base: Path) -> str:
    """What the Manager 4.3 does with a version of the registry; returns what its script prints.

    It unpacks the archive into a folder with the pack's name, notes its files in `.tracking`, installs each
    line of requirements.txt by pip, and runs install.py in the folder of the pack.
    """
    pack, archive = base / "custom_nodes" / PACK_NAME, base / "custom_nodes" / "downloaded.zip"
    pack.mkdir(parents=True)
    write_archive(archive)
    with zipfile.ZipFile(archive) as members:
        members.extractall(pack)
        (pack / ".tracking").write_text("\n".join(members.namelist()), encoding="utf-8")
    archive.unlink()
    command = [sys.executable, "install.py"]
    return subprocess.run(command, cwd=pack, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def told_and_base(tmp_path_factory) -> tuple[str, Path]:
    base = tmp_path_factory.mktemp("clean") / "base"
    return install(base), base


@pytest.fixture(scope="module")
def server(comfyui_folder, told_and_base) -> ComfyServer:
    _, base = told_and_base
    with ComfyServer(comfyui_folder, base, base.parent / "server.log") as running:
        yield running


def test_its_script_makes_the_model_folders(told_and_base):
    told, base = told_and_base
    for folder in ("ipadapter", "ip_prior"):
        assert (base / "models" / folder).is_dir() and str(base / "models" / folder) in told


def test_pip_would_change_nothing_that_is_there(told_and_base):
    """Each line of requirements.txt is met by whatever version is there; ComfyUI's own stay as they are."""
    lines = (told_and_base[1] / "custom_nodes" / PACK_NAME / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for each in wanted:
        assert importlib.metadata.version(each.name) in each.specifier, each
        assert not each.specifier and each.url is None
    ours = {each.name for each in wanted}
    of_comfyui = {"torch", "torchvision", "torchaudio", "numpy", "transformers", "safetensors", "pillow"}
    assert ours.isdisjoint(of_comfyui)


def test_all_nodes_are_there_with_their_pages_and_templates(server):
    module = f"custom_nodes.{PACK_NAME}"
    nodes = {key for key, node in server.object_info().items() if node["python_module"] == module}
    assert nodes == set(json.loads(SIGNATURES.read_text(encoding="utf-8")))
    for key in nodes:
        assert server.fetch(f"/extensions/{PACK_NAME}/docs/{key}.md").startswith(b"# ")
    assert server.get("/api/workflow_templates")[PACK_NAME]
    assert f"/extensions/{PACK_NAME}/appearance.js" in server.get("/extensions")
    assert "IMPORT FAILED" not in server.log_text() and "Traceback" not in server.log_text()


def test_the_first_template_runs_at_once(server):
    """With the weights of the archive, and nothing else."""
    graph = twin("piece_it_together")
    graph["5"]["inputs"] |= {"concepts": 2, "steps": 4}
    graph["10"]["inputs"]["steps"] = 2
    outcome = server.queue(graph)
    assert len(outcome.outputs["12"]["images"]) == 2


def test_what_was_installed_is_what_is_published_and_comfyui_wrote_nothing_into_it(server, told_and_base):
    pack = told_and_base[1] / "custom_nodes" / PACK_NAME
    listed = set((pack / ".tracking").read_text(encoding="utf-8").splitlines())
    there = {str(path.relative_to(pack)) for path in pack.rglob("*") if path.is_file()}
    assert {name for name in there - listed if "__pycache__" not in name} == {".tracking"}
    assert all((ROOT / name).is_file() for name in listed)
