"""The measures of part words: what is asked for, what counts as shown, and a whole run with a few samples."""

from dataclasses import replace

import pytest
import torch

from pit.demo.drawing.creature import PARTS, UNSEEN
from pit.demo.measure import part_words as measures
from pit.demo.measure.estimates import Estimate
from pit.demo.measure.part_words import BARS, CAPTIONS, CEILING, WORDS, WordScores
from pit.demo.measure.plan import FULL
from pit.demo.measure.scores import NAMES
from pit.demo.measure.suite import Laboratory
from pit.demo.models import part_words as models
from pit.demo.models.chain import CreatureChain
from pit.demo.models.part_words import PartArtist, load_creature_words
from pit.demo.models.reader import load_reader
from tests.demo.measure.readings import reading_of
from tests.demo.untrained_parts import use, write_untrained

PLAN = replace(FULL, trials=2)


class HastyChain(CreatureChain):
    """One step instead of 25."""

    def render_words(self, captions, seed, **options):
        return super().render_words(captions, seed, **options | {"steps": 1})


@pytest.fixture(scope="module")
def lab():
    return Laboratory(HastyChain(), load_reader(), 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("parts") / "weights")


@pytest.fixture(autouse=True)
def untrained(folder, monkeypatch):
    use(folder, monkeypatch)
    sample = models.ancestral
    monkeypatch.setattr(models, "ancestral", lambda predict, count, generator, steps, *rest: sample(
        predict, count, generator, 1, *rest))
    monkeypatch.setattr(measures, "KNOWN", 1)


# What is asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BARS)
def test_each_species_of_a_mixture_gives_a_part_that_it_has(number):
    mixtures, again, others = (measures.draw_mixtures(PARTS, number, 20, seed) for seed in (0, 0, 1))
    assert mixtures == again != others
    for mixture in mixtures:
        assert len(set(mixture.species.values())) == number
        assert all(measures.has_part(part, species) for part, species in mixture.species.items())
        assert all(part in mixture.species for part in ("body", "eyes", "mouth"))  # which all species have


def test_a_mixture_is_a_creature_with_the_parts_of_its_species_and_no_others():
    mixture = measures.Mixture({"body": "tide", "horns": "ember"}, {})
    shown = mixture.creature.attributes
    assert (shown["body"], shown["pattern"], shown["body_color"]) == ("round", "spots", "blue")
    assert shown["horns"] == "ram" and shown["wings"] == shown["tail"] == "none"
    asked = {name for name, target in zip(NAMES, mixture.targets, strict=True) if target != UNSEEN}
    assert asked == {"body", "pattern", "body_color", "horns", "horns_color"}
    assert mixture.caption.startswith("a blue round creature with spots and ")
    vocabulary = load_creature_words().vocabulary
    assert [vocabulary.text(word) for word in mixture.prompt(vocabulary)] == ["<body:tide>", "<horns:ember>"]


# What is shown --------------------------------------------------------------------------------------------


def test_a_part_is_exact_with_all_its_attributes():
    mixtures = measures.draw_mixtures(PARTS, 2, 3, 0)
    targets = torch.stack([mixture.targets for mixture in mixtures])
    exact, asked = measures.exact_parts(reading_of(targets), targets)
    assert exact[asked].all()
    assert asked.tolist() == [[part in mixture.species for part in PARTS] for mixture in mixtures]
    wrong = targets.clone()
    wrong[:, NAMES.index("pattern")] += 1
    exact, _ = measures.exact_parts(reading_of(wrong), targets)
    body = PARTS.index("body")
    assert not exact[:, body].any() and exact[:, :body].logical_or(~asked[:, :body]).all()


def test_codes_that_species_share_are_those_of_both(lab):
    judge = object.__new__(measures.Judge)
    judge.clusters = replace(models.load_creature_clusters())
    owners = ["ember", "ember", "tide", "tide"]
    assert judge._codes("horns", "ember", owners, [2, 2, 3, 3]) == (2,)
    assert judge._codes("horns", "ember", owners, [2, 5, 2, 3]) == (2, 5)


def test_every_way_is_measured_and_told_with_what_is_to_be_reached(lab):
    drawn = []
    text = measures.partcraft_tables(replace(lab, on_pictures=drawn.append), PLAN)
    assert sum(drawn) == measures.partcraft_pictures(PLAN)
    parts, words, known, note = text.split("\n\n")
    assert parts.startswith("| part |") and f"of {len(PARTS)} that were found" in known and "46.0%" in note
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in words.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        [way, str(number)] for way in (WORDS, CAPTIONS, CEILING, "to be reached") for number in BARS
    ]
    assert rows[-1][2].startswith("70%, ") and rows[-1][6].startswith("95%, ")


def test_a_table_says_whether_bars_are_reached():
    scores = WordScores(*(Estimate(value, value, value, 128) for value in (0.91, 0.5, 0.8, 0.5, 0.94)))
    last = measures.words_table({WORDS: {1: scores}}).splitlines()[-1]
    assert last == "| to be reached | 1 | 90%, reached |  |  |  | 95%, MISSED |"


def test_the_sheet_has_a_row_for_each_number_of_species():
    sheet = measures.mixtures_sheet(PartArtist(load_creature_words()), 0)
    assert sheet.size == (9 * 256, 4 * 256) and sheet.getcolors(maxcolors=16) is None
