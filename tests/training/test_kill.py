"""No kill loses a run, or more than what came after its last save."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import killed_run

KILLS = 50


@pytest.mark.skipif(sys.platform == "win32", reason="the children are forked")
def test_fifty_kills_lose_no_run_and_at_most_one_interval(tmp_path, cache):
    script = Path(killed_run.__file__)
    told = subprocess.run(
        [sys.executable, str(script), str(cache.folder), str(tmp_path / "run"), str(KILLS), "0"],
        cwd=script.parents[2], env={"PYTHONPATH": str(script.parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300,
    )
    assert told.returncode == 0, told.stderr
    steps = json.loads(told.stdout)
    assert len(steps["begun"]) == KILLS and steps["begun"][0] == 0
    for reached, begun in zip(steps["reached"], steps["begun"][1:], strict=False):
        # The step may have been told before its checkpoint was whole, and saved but not yet told.
        assert reached - killed_run.SAVE_EVERY <= begun <= reached + killed_run.SAVE_EVERY
    assert steps["begun"][-1] > KILLS, "the children hardly came to train"
