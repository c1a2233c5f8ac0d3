"""The measures of what is inserted: on true pictures, on wrong ones, and the whole run with a few samples."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from pit.demo.drawing.composition import THING_LABEL, Composition, Place, draw_composition, draw_map
from pit.demo.drawing.things import sample_thing
from pit.demo.measure import object_insertion as measures
from pit.demo.measure.object_insertion import (
    BARS,
    LABELS,
    InsertionFindings,
    InsertionTrials,
    insertion_table,
    judge,
    missed_bars,
    summarized,
)
from pit.demo.measure.plan import QUICK
from pit.demo.measure.scores import targets_of
from pit.demo.measure.suite import Laboratory
from pit.demo.models import weights
from pit.demo.models.reader import as_pictures, load_reader
from pit.demo.models.sizes import PICTURE_SIZE
from pit.demo.training.truth import pair_of
from pit.demo.triplets import sample_insertion
from tests.demo.instruct import write_untrained
from tests.demo.measure.readings import PAIRS, reading_of

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
COUNT = 8


class TrueReader:
    """Reads what compositions show, whatever the pictures."""

    def __init__(self, shown: list[Composition]):
        self.shown = shown

    def read(self, pictures):
        things = torch.zeros(len(self.shown), PAIRS)
        for row, each in zip(things, self.shown, strict=True):
            for thing, _ in each.things:
                row[pair_of(thing)] = 1
        maps = [draw_map(each, PICTURE_SIZE)[2::4, 2::4].clip(max=THING_LABEL) for each in self.shown]
        return reading_of(
            torch.stack([targets_of(each.creature) for each in self.shown]), things=things,
            counts=[len(each.things) for each in self.shown], maps=np.stack(maps),
        )


def pictures_of(shown):
    return as_pictures([draw_composition(each, PICTURE_SIZE) for each in shown])


@pytest.fixture(scope="module")
def trials():
    insertions = [sample_insertion(random.Random(number), True) for number in range(COUNT)]
    scenes, targets = (
        pictures_of(each) for each in ([one.scene for one in insertions], [one.target for one in insertions])
    )
    latents = torch.zeros(COUNT, 12, 16, 16)
    return InsertionTrials(insertions, [None] * COUNT, scenes, targets, latents, scenes)


def judged(trials, change=lambda insertion: insertion.target):
    shown = [change(each) for each in trials.insertions]
    return judge(TrueReader(shown), trials, pictures_of(shown))


def with_thing(insertion, thing=None, place=None):
    """The target with another thing as the new one, or at another place."""
    things = list(insertion.target.things)
    things[insertion.number] = (thing or insertion.thing, place or insertion.place)
    return replace(insertion.target, things=tuple(things))


def another(thing):
    """A thing of another kind and color."""
    drawn = (sample_thing(random.Random(number)) for number in range(99))
    return next(each for each in drawn if each.kind != thing.kind and each.color != thing.color)


def test_true_pictures_reach_every_bar(trials):
    found = judged(trials)
    assert found.shown.all() and found.single.all() and found.placed.all()
    assert torch.equal(found.kept, torch.ones(COUNT)) and found.difference.abs().max() < 1e-3
    assert missed_bars(summarized(found, found)) == []


def test_another_thing_is_not_the_one_that_was_shown(trials):
    found = judged(trials, lambda each: with_thing(each, another(each.thing)))
    assert not found.shown.any() and found.single.all() and found.placed.all()


def test_nothing_inserted_is_neither_shown_nor_placed_and_differs_nowhere(trials):
    found = judged(trials, lambda each: each.scene)
    assert not found.shown.any() and not found.single.any() and not found.placed.any()
    assert torch.equal(found.difference, torch.zeros(COUNT))


def test_two_new_things_are_one_too_many(trials):
    def twice(insertion):
        second = (another(insertion.thing), Place(insertion.place.x, 0.4))
        return replace(insertion.target, things=(*insertion.target.things, second))

    assert not judged(trials, twice).single.any()


@pytest.mark.parametrize("where", ["above the ground", "on the creature"])
def test_a_thing_in_the_wrong_place_is_told(trials, where):
    def change(insertion):
        return with_thing(insertion, place=replace(insertion.target.place, size=insertion.place.size))

    shown = [change(each) if where == "on the creature" else each.target for each in trials.insertions]
    reader, read = TrueReader(shown), TrueReader(shown).read

    def lifted(pictures):
        reading = read(pictures)
        return replace(reading, maps=reading.maps.roll(-9, dims=1))

    if where == "above the ground":
        reader.read = lifted
    assert not judge(reader, trials, pictures_of(shown)).placed.any()


def test_a_change_of_the_ground_is_told_and_one_at_the_thing_is_not(trials):
    shown = [each.target for each in trials.insertions]
    pictures = pictures_of(shown)
    pictures[:, :, :20] = (pictures[:, :, :20] - 0.5).abs()
    found = judge(TrueReader(shown), trials, pictures).difference
    assert (found > 0.01).float().mean() > 0.5
    assert judged(trials, lambda each: with_thing(each, another(each.thing))).difference.max() < 2e-3


def test_what_the_autoencoder_changes_by_itself_does_not_count(trials):
    shown = [each.target for each in trials.insertions]
    gray = torch.full_like(trials.scenes, 0.5)
    found = judge(TrueReader(shown), replace(trials, decoded=gray), gray).difference
    assert torch.equal(found, torch.zeros(COUNT))


def test_old_things_are_not_taken_for_new_ones(trials):
    maps = torch.from_numpy(np.stack([
        draw_map(each.scene, 64).clip(max=THING_LABEL) for each in trials.insertions
    ]))
    assert not measures.new_things(maps, trials.insertions).any()


def test_the_table_tells_bars_and_settings():
    measured = {key: measures.share(torch.ones(4)) for key in LABELS}
    findings = InsertionFindings({"ours": measured}, {"ours": 1.5}, {1: measured["shown"]}, True)
    text = insertion_table(findings)
    assert all(label in text for label in LABELS.values())
    assert "at most 0.01, MISSED" in text and "85%, reached" in text and "1.50" in text
    assert "seeds of 1 query" in text and missed_bars(measured) == ["difference"]
    assert set(BARS) == set(LABELS)


def test_the_whole_run_measures_every_way_to_insert(tmp_path, monkeypatch):
    from pit.demo.measure import insertion_methods as methods
    from pit.demo.models.inserter import CreatureInserter

    monkeypatch.setattr(weights, "FOLDER", write_untrained(tmp_path / "weights"))
    for name in ("RECOMMENDED", "PUBLISHED"):
        monkeypatch.setattr(methods, name, replace(getattr(methods, name), steps=2))
    for name, value in (("SPREAD_TRIALS", 1), ("SPREAD_SEEDS", 2), ("REPEATED", 1)):
        monkeypatch.setattr(measures, name, value)
    monkeypatch.setattr(methods, "PUBLISHED_TRIALS", 1)
    rendered = []
    lab = Laboratory(None, load_reader(), 0, rendered.append)
    findings = methods.measure_insertion(lab, CreatureInserter(), 2)
    ways = ["OURS", "OURS_FIRST", "PUBLISHED_WAY", "CROPPED", "PASTED", "WORDS", "UNTRAINED", "CEILING"]
    assert [*findings.methods] == [getattr(methods, name) for name in ways]
    assert sum(rendered) == methods.insertion_pictures(replace(QUICK, trials=2))
    for found in findings.methods.values():
        assert set(found) == set(LABELS) and np.isfinite([each.value for each in found.values()]).all()
    assert findings.repeats and findings.spread.keys() == {1, 16}
    assert findings.methods[methods.CEILING]["kept"].value == 1


def test_a_sheet_shows_scene_object_and_result_of_every_seed(tmp_path, monkeypatch):
    from pit.demo.models import inserter

    monkeypatch.setattr(weights, "FOLDER", write_untrained(tmp_path / "weights"))
    chain = inserter.CreatureInserter()
    monkeypatch.setattr(chain, "insert", lambda latents, contexts, seed: torch.rand(1, 3, 256, 256))
    side = measures.SHEET_PIXELS
    assert measures.insertion_sheet(chain, 9).size == (6 * side, 5 * side)
