"""`python -m pit demo-measure`: the whole run with a few samples, its tables, and what it refuses."""

import contextlib
import io
import json
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from pit.__main__ import main
from pit.demo.drawing.creature import ATTRIBUTES
from pit.demo.measure import experiment, report, suite
from pit.demo.measure.baselines import nearest_owner, rivals
from pit.demo.measure.changes import changes_table
from pit.demo.measure.estimates import Estimate
from pit.demo.measure.experiment import Comparison, Findings, Plan
from pit.demo.measure.labels import LABELS
from pit.demo.measure.report import bars, comparison_table, verdict
from pit.demo.measure.trials import MAX_SEED
from pit.demo.models import chain, weights
from pit.demo.models.sizes import PICTURE_SIZE

TINY = Plan(fresh=40, trials=2, sets=1, known=6, compared=(2, 5))
SEEDS = 2
KEPT = [f"kept_{parts}_{coherence}" for parts in (1, 2, 3, 5) for coherence in ("free", "natural")]
SHARES = [*KEPT, "reader_accuracy", "ceiling", "whole", "scene_1.0", "scene_0.7", "scene_0.4"]


class HastyChain(chain.CreatureChain):
    """Two steps instead of 25."""

    def sample(self, *arguments, **options):
        return super().sample(*arguments, **options | {"steps": 2})

    def denoise(self, tokens, captions, generator, steps=2, guidance_scale=2.0, weight=1.0):
        return super().denoise(tokens, captions, generator, 2, guidance_scale, weight)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the command prints and writes, with the largest seed there is."""
    folder, printed = tmp_path_factory.mktemp("measured"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(chain, "CreatureChain", HastyChain)
        patch.setattr(experiment, "QUICK", TINY)
        for module, name in ((suite, "DIVERSE_SEEDS"), (report, "SHEET_SEEDS")):
            patch.setattr(module, name, SEEDS)
        code = main([
            "demo-measure", "--quick", "--json", str(folder / "a.json"), "--picture", str(folder / "a.png"),
            "--seed", str(MAX_SEED),
        ])
    numbers = json.loads((folder / "a.json").read_text())
    return SimpleNamespace(code=code, text=printed.getvalue(), numbers=numbers, folder=folder)


def test_every_measure_is_a_finite_number(measured):
    assert measured.code == 0
    for name in SHARES:
        value, (low, high) = measured.numbers[name], measured.numbers["intervals"][name]
        assert 0 <= low <= value <= high <= 1, name
    assert 0 <= measured.numbers["diverse"] < 1.5
    json.dumps(measured.numbers, allow_nan=False)


def test_the_reader_is_good_and_each_attribute_counts_the_same(measured):
    shares = [value for name, value in measured.numbers["reader"].items() if name not in ("scene", "whole")]
    assert measured.numbers["reader_accuracy"] == pytest.approx(sum(shares) / len(shares))
    assert len(shares) == len(ATTRIBUTES) and measured.numbers["reader_accuracy"] > 0.95
    assert measured.numbers["stages"]["free"]["rendered"] > 0.9


def test_chance_and_the_samples_stand_beside_the_measures(measured):
    assert set(measured.numbers["chance"]) == set(KEPT)
    samples = measured.numbers["samples"]
    assert (samples["kept_2_free"], samples["whole"], samples["diverse"]) == (2, 16, 1)


def test_distances_stand_beside_those_of_drawings(measured):
    for kinds in measured.numbers["distances"].values():
        assert set(kinds) == {"frechet", "frechet of renders", "kernel", "kernel of the ceiling"}
        assert all(map(math.isfinite, kinds.values()))
        assert kinds["frechet"] > 0 and kinds["frechet of renders"] > 0


def test_every_baseline_is_compared_at_two_numbers_of_parts(measured):
    rows = measured.numbers["baselines"]
    names = ["prior, recommended", *rivals(TINY.known)]
    expected = [(name, parts) for parts in (2, 5) for name in names]
    assert [(row["method"], row["parts"]) for row in rows] == expected
    for words in ("mean of", "concatenated", "no guidance", "published settings", "nearest of 6 training"):
        assert any(words in row["method"] for row in rows), words
    assert all(row["both"] <= min(row["kept"], row["whole"]) + 1e-6 for row in rows)


def test_the_tables_name_the_measures_in_words_and_say_that_the_samples_are_few(measured):
    for name in (*SHARES, "diverse"):
        assert f"| {LABELS[name]} |" in measured.text
        assert f"| {name} |" not in measured.text
    assert "| 1 part given, free mixture |" in measured.text
    assert "| scene as asked, adapter weight 0.7 |" in measured.text
    assert "only 2 samples" in measured.text and "only 1 sample)" in measured.text
    assert "nan" not in measured.text


def test_the_sheet_has_six_rows_of_parts_and_concepts(measured):
    with Image.open(measured.folder / "a.png") as sheet:
        assert sheet.size == ((3 + SEEDS) * PICTURE_SIZE, 6 * PICTURE_SIZE)
        assert sheet.getcolors(maxcolors=16) is None


def test_the_plan_counts_every_picture_that_is_drawn():
    for plan in (TINY, experiment.FULL):
        kept_and_ceilings, scenes, compared = 2 * (4 + 1), 3, 5 * 2
        expected = plan.trials * (kept_and_ceilings + scenes + compared) + plan.sets * 32
        assert plan.pictures == expected


def estimate(value, count=100):
    return Estimate(value, value, value, count)


def findings(**measures):
    named = {"ceiling_natural": 0.8, "kept_2_natural": 0.75, "kept_3_free": 0.2, "whole": 0.9, **measures}
    return Findings(measures={name: estimate(value) for name, value in named.items()})


def test_bars_and_verdicts():
    assert bars(findings())["kept_2_natural"] == pytest.approx(0.93 * 0.8)
    assert verdict(findings(), "kept_2_natural") == "74.4%, reached"
    assert verdict(findings(kept_2_natural=0.74), "kept_2_natural") == "74.4%, MISSED"
    assert verdict(findings(whole=0.95), "whole") == "95.0%, reached"
    assert verdict(findings(), "whole") == "95.0%, MISSED"
    assert verdict(findings(), "kept_3_free") == ""


def test_the_table_says_which_baselines_the_prior_does_not_beat():
    leads = {
        "": None, "yes (+30.0 points)": Estimate(0.3, 0.2, 0.4, 100),
        "NO (-10.0 points)": Estimate(-0.1, -0.2, -0.05, 100),
        "yes, not clearly (+1.0 points)": Estimate(0.01, -0.02, 0.04, 100),
    }
    rows = [Comparison("method", 2, *[estimate(0.5)] * 3, lead) for lead in leads.values()]
    lines = comparison_table(Findings(comparisons=rows)).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == list(leads)


def test_changes_say_what_is_clear():
    def numbers(value, low, high):
        return {"whole": value, "intervals": {"whole": [low, high]}}

    before = numbers(0.8, 0.75, 0.85)
    clear = changes_table(numbers(0.9, 0.87, 0.93), before).splitlines()[-1]
    assert clear == "| complete creatures, all | 80.0% | 90.0% | +10.0 points | clear |"
    assert "clear" not in changes_table(numbers(0.84, 0.8, 0.88), before)


@pytest.mark.parametrize("text", ["", "[1]", "{}"])
def test_a_file_that_is_no_earlier_run_is_refused(capsys, tmp_path, text):
    (tmp_path / "before.json").write_text(text)
    assert "before.json" in refused(capsys, "--against", tmp_path / "before.json")


def test_the_nearest_owner_is_near_with_all_of_its_parts():
    known = torch.tensor([[1.0, 0], [0, 0], [9, 9], [1, 1], [8, 8]])
    owners = torch.tensor([0, 1, 1, 2, 2])
    assert nearest_owner(torch.tensor([[1.0, 0]]), known, owners) == 0
    assert nearest_owner(torch.tensor([[1.0, 1]]), known, owners) == 2
    assert nearest_owner(torch.tensor([[1.0, 0], [9, 9]]), known, owners) == 1  # 0 owns nothing near (9, 9)
    assert nearest_owner(torch.tensor([[1.0, 1], [8, 8.4]]), known, owners) == 2


def refused(capsys, *arguments):
    code = main(["demo-measure", *map(str, arguments)])
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_seed_out_of_range_is_refused(capsys):
    assert f"seed between 0 and {MAX_SEED}, got -1" in refused(capsys, "--seed", -1)


def test_missing_weights_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert "got no such file. Install the pack" in refused(capsys)


@pytest.mark.parametrize("flag", ["--json", "--picture"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path, flag):
    message = f"Expected a folder {tmp_path / 'no'} for file, got none"
    assert message in refused(capsys, flag, tmp_path / "no" / "file")
