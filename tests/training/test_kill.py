"""No kill loses a run, or more than what came after its last save."""
from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pit.piece_it_together.prior_files import load_prior
from tests.training import killed_run
from tests.training.killed_run import SAVE_EVERY


def killed(cache: Path, folder: Path) -> list[dict]:
    """What the children told."""
    script = Path(killed_run.__file__)
    root = script.parents[2]
    told = subprocess.run(
        [sys.executable, str(script), str(cache), str(folder)], cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="the children are forked")
def test_a_kill_at_any_write_or_rename_loses_at_most_one_interval(tmp_path, cache):
    children = killed(cache.folder, tmp_path)
    points = [child["point"] for child in children]
    assert points[-1] is None and len({point for point in points[:-1] if "os.rename" in point}) > 5
    assert len({point for point in points[:-1] if point.startswith("inside")}) > 5
    for child, following in itertools.pairwise(children):
        saved = child["reached"] - child["reached"] % SAVE_EVERY
        assert saved <= following["begun"] <= child["reached"] + 1, child["point"]
    run, whole = (load_prior(tmp_path / name / "prior.safetensors").state_dict() for name in ("run", "whole"))
    assert all(run[key].equal(whole[key]) for key in whole)
    assert (tmp_path / "run/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()
