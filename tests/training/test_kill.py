"""No kill loses a run, or more than what came after its last save."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import killed_run
from tests.training.tiny_renderer import write_pictures

KILLS, LORA_KILLS = 50, 15


def killed(kind: str, data: Path, folder: Path, kills: int) -> dict[str, list[int]]:
    """What the children told."""
    script = Path(killed_run.__file__)
    told = subprocess.run(
        [sys.executable, str(script), kind, str(data), str(folder), str(kills), "0"],
        cwd=script.parents[2], env={"PYTHONPATH": str(script.parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def assert_nothing_is_lost(steps: dict[str, list[int]], kills: int) -> None:
    assert len(steps["begun"]) == kills and steps["begun"][0] == 0
    for reached, begun in zip(steps["reached"], steps["begun"][1:], strict=False):
        # The step may have been told before its checkpoint was whole, and saved but not yet told.
        assert reached - killed_run.SAVE_EVERY <= begun <= reached + killed_run.SAVE_EVERY


@pytest.mark.skipif(sys.platform == "win32", reason="the children are forked")
def test_fifty_kills_lose_no_run_and_at_most_one_interval(tmp_path, cache):
    steps = killed("prior", cache.folder, tmp_path / "run", KILLS)
    assert_nothing_is_lost(steps, KILLS)
    assert steps["begun"][-1] > KILLS, "the children hardly came to train"


@pytest.mark.skipif(sys.platform == "win32", reason="the children are forked")
def test_kills_lose_no_training_of_an_ip_lora(tmp_path):
    steps = killed("lora", write_pictures(tmp_path / "pictures"), tmp_path / "run", LORA_KILLS)
    assert_nothing_is_lost(steps, LORA_KILLS)
    assert steps["begun"][-1] > 0, "the children hardly came to train"
