"""`pytest --golden DIR` as people type it, with a folder that lies outside of the pack."""

import shutil
import subprocess
import sys

import pytest

from dev import ROOT
from tests.golden import BUNDLED


@pytest.mark.parametrize("joined", [False, True])
def test_golden_data_come_from_the_folder_that_is_named(tmp_path, joined):
    shutil.copy(BUNDLED / "pit_paste_geometry.json", tmp_path)
    shutil.copy(BUNDLED / "pit_tiny_io.safetensors", tmp_path)
    option = [f"--golden={tmp_path}"] if joined else ["--golden", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "golden", *option, "-rs", "-k", "pixel_values"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 5), done.stdout + done.stderr
    assert f"{tmp_path} has no pit_clip_pixel_values" in done.stdout, done.stdout
