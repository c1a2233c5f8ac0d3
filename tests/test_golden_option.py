"""`pytest --golden DIR` as people type it, with a folder that lies outside of the pack."""

import shutil
import subprocess
import sys

from dev import ROOT
from tests.golden import BUNDLED


def pytest_with(*arguments: str) -> subprocess.CompletedProcess:
    """pytest in a process of its own; `--markers` ends it before it collects anything."""
    command = [sys.executable, "-m", "pytest", *arguments, "--markers"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_folder_may_follow_after_a_space(tmp_path):
    shutil.copy(BUNDLED / "pit_tiny_io.safetensors", tmp_path)
    done = pytest_with("-m", "golden", "--golden", str(tmp_path))
    assert done.returncode == 0 and "@pytest.mark.golden" in done.stdout, done.stdout + done.stderr


def test_a_folder_without_golden_data_is_refused(tmp_path):
    done = pytest_with("--golden", str(tmp_path))
    assert done.returncode != 0 and f"golden data for --golden, got {tmp_path}" in done.stderr, done.stderr
