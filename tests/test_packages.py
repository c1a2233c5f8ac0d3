"""Packages that ComfyUI does not bring: named where they are missing, imported only when they are used."""

import subprocess
import sys

import pytest

from dev import ROOT
from pit.packages import needed_for

WITH_CHARTS_AND_PARTS = (
    "pit.charts", "pit.training.chart", "pit.piece_it_together.direction_chart",
    "pit.demo.measure.picture_table", "pit.piece_it_together.training.make_parts",
)


@pytest.mark.parametrize(
    ("module", "package"), [("skimage.color", "scikit-image"), ("matplotlib", "matplotlib")]
)
def test_a_missing_package_is_named_as_pip_knows_it(module, package):
    with pytest.raises(ModuleNotFoundError) as raised, needed_for("Charts"):
        raise ModuleNotFoundError("No module", name=module)
    assert str(raised.value) == (
        f"Charts: expected the package {package}, got none. Install it with: pip install {package}"
    )
    assert raised.value.name == module


def test_other_errors_stay_as_they_are():
    with pytest.raises(ValueError, match="^mine$"), needed_for("Charts"):
        raise ValueError("mine")


def test_large_packages_are_not_imported_at_start():
    """ComfyUI's start would wait for them."""
    script = f"import sys, {', '.join(WITH_CHARTS_AND_PARTS)}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "pit.training.chart" in loaded
    assert {"matplotlib", "skimage"}.isdisjoint(loaded)
