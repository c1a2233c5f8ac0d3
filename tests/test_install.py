import shutil
import subprocess
import sys
from pathlib import Path

from dev import ROOT


def run_install(pack: Path) -> str:
    pack.mkdir(parents=True)
    shutil.copy(ROOT / "install.py", pack)
    command = [sys.executable, "install.py"]
    return subprocess.run(command, cwd=pack, capture_output=True, text=True, check=True).stdout


def test_inside_comfyui_it_makes_the_model_folders_and_names_them(tmp_path):
    told = run_install(tmp_path / "custom_nodes" / "some-name")
    for folder in ("ipadapter", "ip_prior"):
        assert (tmp_path / "models" / folder).is_dir()
        assert str(tmp_path / "models" / folder) in told


def test_elsewhere_it_makes_nothing_and_says_why(tmp_path):
    told = run_install(tmp_path / "clone")
    assert "Expected the pack in the custom_nodes folder" in told
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]
