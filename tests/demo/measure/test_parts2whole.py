"""The measures of wholes: on true pictures, on wrong ones, and the whole run with a few samples."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pit.demo.drawing.composition import THING_LABEL, draw_map
from pit.demo.drawing.creature import UNSEEN
from pit.demo.drawing.mixture import reshaped
from pit.demo.drawing.pose import NEUTRAL
from pit.demo.measure import parts2whole as measures
from pit.demo.measure.parts2whole import (
    BARS,
    LABELS,
    PART_COUNTS,
    WAYS,
    WholeFindings,
    leaked,
    measured,
    missed_bars,
    overlap,
    overlaps,
    whole_tables,
)
from pit.demo.measure.scores import NAMES, targets_of
from pit.demo.measure.whole_trials import draw_whole_trials, given_targets, masked_targets
from pit.demo.models import weights
from pit.demo.models.reader import MAP_SIZE, load_reader
from tests.demo.measure.readings import reading_of
from tests.demo.untrained_whole import write_untrained

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
COUNT = 12


@pytest.fixture(scope="module")
def trials():
    return draw_whole_trials(0, COUNT, 3, ["white"])


def true_reading(trials, **others):
    maps = [draw_map(trial.composition, MAP_SIZE).clip(max=THING_LABEL) for trial in trials]
    shown = {"maps": np.stack(maps)} | others
    return reading_of(torch.stack([targets_of(trial.target) for trial in trials]), **shown)


def test_trials_are_the_same_for_the_same_seed_and_mix_other_creatures(trials):
    assert draw_whole_trials(0, COUNT, 3, ["white"]) == trials != draw_whole_trials(1, COUNT, 3, ["white"])
    for trial in trials:
        assert len(trial.sources) == 3
        for part, source in trial.sources.items():
            assert trial.target.attributes[part] == source.attributes[part] != "none"
    assert len({trial.target.pose for trial in trials}) == COUNT


def test_a_request_shows_each_reference_with_the_mask_of_its_part(trials):
    request = trials[0].request()
    assert [each.label for each in request.references] == list(trials[0].sources)
    assert request.prompt == "a creature" and request.pose.size == (256, 256)
    for each in request.references:
        assert each.image.shape == (1, 256, 256, 3) and each.mask.shape == (1, 256, 256)
        inside, outside = each.image[each.mask > 0.9], each.image[each.mask < 0.1]
        assert len(inside) and (inside < 0.98).any(dim=1).float().mean() > 0.5 and len(outside)


def test_true_pictures_reach_every_bar(trials):
    reading = true_reading(trials)
    found = measured(trials, reading, overlaps(trials, reading))
    assert set(found) == set(LABELS)
    assert [found[key].value for key in ("kept", "posed", "whole", "scene")] == [1, 1, 1, 1]
    assert missed_bars(3, found) == []


def test_what_the_pose_hides_is_not_asked_for(trials):
    behind = [
        replace(trial, target=replace(trial.target, pose=replace(trial.target.pose, view="back")))
        for trial in trials
    ]
    eyes = NAMES.index("eyes")
    assert (given_targets(behind)[:, eyes] == UNSEEN).all()
    for targets in (masked_targets(behind, behind, number) for number in range(3)):
        assert (targets[:, eyes] == UNSEEN).all()


def test_parts_alone_are_drawn_as_they_stand_from_the_front(trials):
    for trial in trials:
        alone = trial.parts
        assert alone.creature.pose == NEUTRAL and alone.parts == tuple(trial.sources)
        assert alone.creature.attributes == trial.target.attributes and alone.caption == "a creature"


def test_what_masks_leave_out_is_all_that_is_not_given(trials):
    for number in range(3):
        for trial, row in zip(trials, masked_targets(trials, trials, number), strict=True):
            source = [*trial.sources.values()][number]
            for index, name in enumerate(NAMES):
                part = name.removesuffix("_color")
                part = "body" if part == "pattern" else part
                if row[index] != UNSEEN:
                    assert part not in trial.sources and row[index] == targets_of(source)[index]


def test_a_picture_of_a_whole_reference_leaks(trials):
    sources = [next(iter(trial.sources.values())) for trial in trials]
    reading = reading_of(torch.stack([targets_of(each).clamp(min=0) for each in sources]))
    assert leaked(trials, reading).mean() > 0.4 > BARS["leaked"]


def test_all_that_is_not_given_in_colors_of_any_reference_is_a_leak():
    trials = draw_whole_trials(0, 64, 3, ["white"])
    shown = torch.stack([targets_of(trial.target).clamp(min=0) for trial in trials])
    borrowed = torch.stack([masked_targets(trials, trials, number) for number in range(3)]).amax(dim=0)
    looks = (borrowed != UNSEEN) & measures.LOOKS
    everything = reading_of(torch.where(looks, borrowed, shown))
    assert leaked(trials, everything).mean() > 0.6
    # Shapes, which come from the pose, are none; and colors by chance do not count.
    shapes = reading_of(torch.where((borrowed != UNSEEN) & ~measures.LOOKS, borrowed, shown))
    assert abs(leaked(trials, shapes).mean()) < BARS["leaked"]


def test_another_pose_shows_other_shapes_in_place_of_the_given_parts(trials):
    trial, rng = trials[0], random.Random(0)
    figure = reshaped(trial.target, trial.sources, rng)
    assert all(figure.attributes[part] != trial.target.attributes[part] for part in trial.sources)
    own, other = trial.request(), trial.request(figure)
    assert own.pose.tobytes() != other.pose.tobytes() and own.prompt == other.prompt
    assert torch.equal(own.references[0].image, other.references[0].image)


def test_overlap_is_the_mean_over_parts_that_are_or_should_be_there():
    true, found = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    true[:2], found[:1] = 1, 1
    assert overlap(found, true) == pytest.approx(0.5)
    found[3] = 2
    assert overlap(found, true) == pytest.approx(0.25) and overlap(true, true) == 1


def test_the_tables_tell_bars():
    ways = {name: {key: measures.share(torch.ones(40)) for key in LABELS} for name in WAYS}
    ways["other"] = {"kept": measures.share(torch.zeros(40))}
    text = whole_tables(WholeFindings({parts: ways for parts in PART_COUNTS}))
    assert all(label in text for label in LABELS.values()) and "at most 5%, MISSED" in text
    assert "85%, reached" in text and "80%, reached" in text and "| other |" in text


def test_the_whole_run_measures_every_way(tmp_path, monkeypatch):
    from pit.demo.measure.suite import Laboratory
    from pit.demo.models.whole_pictures import CreatureWhole

    monkeypatch.setattr(weights, "FOLDER", write_untrained(tmp_path / "weights"))
    hasty = {name: replace(settings, steps=2) for name, settings in WAYS.items()}
    monkeypatch.setattr(measures, "WAYS", hasty)
    monkeypatch.setattr(measures, "without_pose", lambda lab, trials: {measures.PRIOR: true_reading(trials)})
    monkeypatch.setattr(measures, "through_autoencoder", lambda lab, trials: true_reading(trials))
    whole, reader, drawn = CreatureWhole(), load_reader(), []
    findings = measures.measure_wholes(Laboratory(None, reader, 0, drawn.append), whole, 2)
    assert [*findings.ways] == [*PART_COUNTS] and sum(drawn) == 2 * len(PART_COUNTS) * (len(WAYS) + 1)
    assert measures.parts2whole_pictures(SimpleNamespace(trials=2)) == 2 * len(PART_COUNTS) * (len(WAYS) + 3)
    for ways in findings.ways.values():
        assert [*ways] == [*WAYS, measures.OTHER_POSE, measures.PRIOR]
        for name in WAYS:
            assert set(ways[name]) == set(LABELS)
            assert all(np.isfinite(each.value) for each in ways[name].values())
        assert set(ways[measures.OTHER_POSE]) == {*LABELS} - {"posed"}
    request = draw_whole_trials(3, 1, 3, ["white"])[0].request()
    pictures = whole.draw([request] * 3, 5, hasty["as trained"], batch=2)
    alone = whole.draw([request], 7, hasty["as trained"])
    torch.testing.assert_close(pictures[2:], alone, atol=1e-4, rtol=0)
    differing = {name: whole.draw([request], 5, settings) for name, settings in hasty.items()}
    for name, each in differing.items():
        assert name == "as trained" or (each - pictures[:1]).abs().max() > 1e-4


def test_a_sheet_shows_references_pose_and_results(monkeypatch):
    class Painter:
        def draw(self, requests, seed, settings):
            return torch.rand(len(requests), 3, 256, 256)

    assert measures.whole_sheet(Painter(), rows=2).size == (12 * 256, 2 * 256)
