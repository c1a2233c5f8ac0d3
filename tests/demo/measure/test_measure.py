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
from pit.demo.drawing.scenes import SCENE_NAMES
from pit.demo.measure import GROUPS, SYSTEMS, experiment, plan, report, suite, systems
from pit.demo.measure.baselines import nearest_owner, nearest_training_creature, rivals
from pit.demo.measure.catalog import BARS, LABELS
from pit.demo.measure.changes import changes_table
from pit.demo.measure.comparison import Comparison
from pit.demo.measure.estimates import Estimate
from pit.demo.measure.findings import Findings
from pit.demo.measure.plan import Plan
from pit.demo.measure.tables import attribute_table, bars, comparison_table, tables, time_table, verdict
from pit.demo.measure.trials import MAX_SEED
from pit.demo.models import chain, weights
from pit.demo.models.sizes import PICTURE_SIZE
from pit.demo.training.data import KINDS
from pit.files.weights import WeightFileError

TINY = Plan(
    fresh=10, decoded=2, grounds=1, fitted=60, tested=20, trials=2, sets=1, known=6, compared=(2, 5)
)
SEEDS = 2
KEPT = [f"kept_{parts}_{coherence}" for parts in (1, 2, 3, 5) for coherence in ("free", "natural")]
SHARES = [
    *KEPT, "reader_accuracy", "reader_maps", "autoencoder_attributes", "embedding_attributes",
    "embedding_attributes_with_things", "embedding_whole", "ceiling", "ear_color", "tokens_whole", "whole",
    "scene_1.0", "scene_0.7", "scene_0.4", "words_attributes", "words_things", "words_whole",
]
LEVELS = [
    "autoencoder_white", "embedding_white", "tokens_white",
    *(f"autoencoder_ground_{ground}" for ground in (*SCENE_NAMES, "mixed", "plain", "turned")),
]
SLUGS = [kind.replace(" ", "_") for kind in KINDS]
OTHERS = [
    "diverse", "embedding_kept", "ceiling_natural", "whole_free", "whole_natural",
    *(f"{measure}_{slug}" for measure in ("autoencoder_psnr", "drawn") for slug in SLUGS),
]


class HastyChain(chain.CreatureChain):
    """Two steps instead of 25."""

    def sample(self, *arguments, **options):
        return super().sample(*arguments, **options | {"steps": 2})

    def denoise(self, tokens, captions, generator, steps=2, guidance_scale=2.0, weight=1.0):
        return super().denoise(tokens, captions, generator, 2, guidance_scale, weight)

    def denoise_embeddings(self, embeddings, captions, generator, steps=2, guidance_scale=2.0):
        return super().denoise_embeddings(embeddings, captions, generator, 2, guidance_scale)

    def render_words(self, *arguments, **options):
        return super().render_words(*arguments, **options | {"steps": 2})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the command prints and writes, with the largest seed there is."""
    folder, printed = tmp_path_factory.mktemp("measured"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(chain, "CreatureChain", HastyChain)
        patch.setattr(plan, "QUICK", TINY)
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
    assert all(0 <= measured.numbers[name] <= 255 * 3**0.5 for name in LEVELS)
    json.dumps(measured.numbers, allow_nan=False)


def test_every_measure_has_a_label_and_every_bar_is_measured(measured):
    assert set(measured.numbers["intervals"]) == {*SHARES, *LEVELS, *OTHERS} == set(LABELS)
    assert measured.numbers["bars"].items() >= BARS.items()
    assert set(measured.numbers["bars"]) == {*BARS, "kept_2_natural"}


def test_the_reader_is_good_and_each_attribute_counts_the_same(measured):
    shares = measured.numbers["attributes"]["reader"]
    counted = [shares[name] for name in (*ATTRIBUTES, "things", "scene")]
    assert measured.numbers["reader_accuracy"] == pytest.approx(sum(counted) / len(counted))
    assert measured.numbers["reader_accuracy"] > 0.95
    assert measured.numbers["stages"]["free"]["rendered"] > 0.9


def test_every_attribute_is_followed_through_the_models(measured):
    columns = measured.numbers["attributes"]
    assert list(columns) == ["reader", "autoencoder", "embedding", "tokens", "words"]
    assert {"things", "kind of thing", "color of thing", "scene"} <= set(columns["words"])
    for name in ("reader", "embedding"):
        assert set(ATTRIBUTES) <= set(columns[name])


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
    for name in LABELS:
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


@pytest.mark.parametrize("full", [TINY, plan.FULL])
def test_the_plan_counts_every_picture_that_is_drawn(full):
    kept_and_ceilings, scenes, compared, embedding, words = 2 * (4 + 1), 3, 5 * 2, 2, 2
    settings = kept_and_ceilings + scenes + compared + embedding + words
    assert full.pictures() == full.trials * settings + full.sets * 32 + min(32, full.trials)
    assert full.pictures(["words"]) == 2 * full.trials and full.pictures(["reader", "speed"]) == 0
    assert full.pictures(["embedding"]) == 3 * full.trials  # and from tokens, in scenes and on white


def test_groups_are_taken_in_order_and_only_those_asked_for(monkeypatch):
    taken = []
    for name in GROUPS:
        monkeypatch.setitem(experiment.MEASURES, name, lambda *_, name=name: taken.append(name))
    told = []
    experiment.run_measures(None, TINY, ["words", "reader"], told.append)
    assert taken == told == ["reader", "words"]
    assert list(experiment.MEASURES) == list(GROUPS)


def test_one_group_alone_is_measured_printed_and_written(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "QUICK", TINY)
    numbers, picture = tmp_path / "a.json", tmp_path / "a.png"
    flags = ["--quick", "--only", "embedding", "--json", numbers, "--picture", picture]
    with monkeypatch.context() as patch:
        patch.setattr(chain, "CreatureChain", HastyChain)
        assert main(["demo-measure", *map(str, flags)]) == 0
    found = {name for name in json.loads(numbers.read_text())["intervals"]}
    assert found == {
        "embedding_attributes", "embedding_attributes_with_things", "embedding_kept", "embedding_whole",
        "embedding_white",
    }
    assert not picture.exists()
    assert f"| {LABELS['embedding_kept']} |" in capsys.readouterr().out


def test_another_system_is_measured_on_demand_and_gets_a_sheet_of_its_own(capsys, tmp_path, monkeypatch):
    def tables(lab, given):
        lab.on_pictures(given.trials)
        return "| all | 100% |"

    def sheet(lab):
        return Image.new("RGB", (4, 4))

    system = systems.SystemMeasures(dict, tables, lambda given: given.trials, sheet)
    monkeypatch.setitem(systems.SYSTEM_MEASURES, "pops", system)
    assert main(["demo-measure", "--only", "pops", "--picture", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out.startswith("| all | 100% |\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a-pops.png"]
    assert tuple(systems.SYSTEM_MEASURES) == SYSTEMS


def test_a_file_that_another_system_lacks_is_said_before_the_work(capsys, monkeypatch):
    def missing():
        raise WeightFileError("Expected creature_whole.safetensors, got no such file.")

    def never(*arguments):
        raise AssertionError("measured")

    system = systems.SystemMeasures(missing, never, never, never)
    monkeypatch.setitem(systems.SYSTEM_MEASURES, "parts2whole", system)
    assert main(["demo-measure", "--only", "words", "--only", "parts2whole"]) == 1
    assert capsys.readouterr().err == "error: Expected creature_whole.safetensors, got no such file.\n"


def test_what_several_measures_need_is_made_once_and_goes_with_the_laboratory():
    lab, other = (suite.Laboratory(None, None, 0) for _ in range(2))
    made = []
    for each in (lab, lab, other):
        each.once("key", lambda: made.append(1) or len(made))
    assert made == [1, 1] and (lab.once("key", list), other.once("key", list)) == (1, 2)


def test_training_creatures_are_encoded_once_for_all_comparisons():
    views = []

    def encode(pictures):
        views.append(len(pictures))
        return torch.zeros(len(pictures), 16, 64)

    lab = suite.Laboratory(SimpleNamespace(encode=encode, encode_parts=encode), None, 0)
    trials = suite.draw_trials(0, 1, 2, 0.0)
    first, second = (nearest_training_creature(3)(lab, trials) for _ in range(2))
    # The parts of three creatures; and twice the given parts, and the creature that was found.
    assert torch.equal(first, second) and views[3:] == [2, 1, 2, 1]


def estimate(value, count=100):
    return Estimate(value, value, value, count)


def findings(**measures):
    named = {"ceiling_natural": 0.8, "kept_2_natural": 0.75, "kept_3_free": 0.2, "whole": 0.9, **measures}
    return Findings(measures={name: estimate(value) for name, value in named.items()})


def test_bars_and_verdicts():
    assert bars(findings())["kept_2_natural"] == pytest.approx(0.93 * 0.8)
    assert verdict(findings(), "kept_2_natural") == "74.4%, reached"
    assert verdict(findings(kept_2_natural=0.74), "kept_2_natural") == "74.4%, MISSED"
    assert verdict(findings(whole=0.99), "whole") == "99.0%, reached"
    assert verdict(findings(), "whole") == "99.0%, MISSED"
    assert verdict(findings(), "kept_3_free") == ""
    assert verdict(findings(autoencoder_psnr_posed=25.2), "autoencoder_psnr_posed") == "25.0 dB, reached"


def test_the_bar_of_a_distance_is_the_most_that_is_allowed():
    assert verdict(findings(autoencoder_white=1.9), "autoencoder_white") == "at most 2.0/255, reached"
    assert verdict(findings(autoencoder_white=2.1), "autoencoder_white") == "at most 2.0/255, MISSED"


def test_tables_show_only_what_was_measured():
    found = Findings(measures={"words_things": estimate(0.9)}, attributes={"words": {"scene": estimate(0.8)}})
    assert [block.splitlines()[0] for block in tables(found).split("\n\n")] == [
        "| measure | value (95% interval) | target |", "| found | as in the caption |",
    ]
    assert "kept_2_natural" not in bars(found)


def test_the_table_by_attribute_leaves_open_what_was_not_asked():
    shares = {"ears_color": estimate(0.5)}
    found = Findings(attributes={"reader": {**shares, "whole": estimate(1.0)}, "embedding": shares})
    assert attribute_table(found).splitlines()[2:] == [
        "| ears color | 50.0% (50.0% to 50.0%) | 50.0% (50.0% to 50.0%) |",
        "| complete or flawed | 100.0% (100.0% to 100.0%) |  |",
    ]


def test_eight_concepts_have_ten_seconds():
    rows = time_table(Findings(seconds={"denoise": 8.0, "decode": 1.5})).splitlines()
    assert rows[-1] == "| together | 9.50 | at most 10, reached |"
    assert "MISSED" in time_table(Findings(seconds={"denoise": 11.0}))


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


def test_changes_are_written_in_the_unit_of_the_measure():
    def numbers(value):
        return {"autoencoder_psnr_posed": value, "intervals": {"autoencoder_psnr_posed": [value, value]}}

    assert "| 21.0 dB | 25.5 dB | +4.5 dB | clear |" in changes_table(numbers(25.5), numbers(21.0))


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
