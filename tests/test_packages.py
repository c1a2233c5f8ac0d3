"""Packages that ComfyUI does not bring: named where they are missing, imported only when they are used."""

import subprocess
import sys

import pytest

from dev import ROOT
from pit.packages import LORA_TRAINING, check_packages, needed_for

WITH_CHARTS_AND_PARTS = (
    "pit.charts", "pit.training.chart", "pit.concepts.direction_chart",
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


@pytest.mark.parametrize("missing", [["peft"], ["peft", "diffusers"], list(LORA_TRAINING)])
def test_all_missing_packages_are_named_with_the_command_for_this_python(monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to hide a package
    expected = [name for name in LORA_TRAINING if name in missing]
    with pytest.raises(ModuleNotFoundError) as raised:
        check_packages("Train IP-LoRA", LORA_TRAINING)
    message = str(raised.value)
    assert message.startswith("Train IP-LoRA: expected the package")
    assert f'Run `"{sys.executable}" -m pip install {" ".join(expected)}` and restart.' in message


def test_a_package_that_lacks_another_or_does_not_fit_is_told_so(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lacking.py").write_text("import no_such_package_here\n")
    (tmp_path / "unfit.py").write_text("from json import no_such_name\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_here, which lacking needs.*install no_"):
        check_packages("Charts", ["lacking"])
    with pytest.raises(ImportError, match="unfit to fit the others, got: cannot import.*--upgrade unfit"):
        check_packages("Charts", ["unfit"])


def test_installed_packages_pass():
    check_packages("Charts", ["json", "matplotlib"])


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
