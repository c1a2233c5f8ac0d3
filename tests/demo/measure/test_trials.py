"""What the models are asked: the same for the same seed, with the wanted number of parts."""

import pytest
import torch

from pit.demo.drawing.creature import PARTS, SCENES, labels, typical_attributes
from pit.demo.drawing.draw import whole_view
from pit.demo.measure.trials import (
    FREE,
    MAX_SEED,
    NATURAL,
    Trial,
    all_targets,
    check_seed,
    draw_trials,
    scene_caption,
    true_pictures,
)
from pit.demo.models.sizes import ENCODER_SIZE


def test_the_same_arguments_draw_the_same_trials():
    assert draw_trials(3, 8, 2, FREE) == draw_trials(3, 8, 2, FREE)
    assert draw_trials(3, 8, 2, FREE)[:5] == draw_trials(3, 5, 2, FREE)


@pytest.mark.parametrize("other", [
    dict(seed=4), dict(parts=3), dict(coherence=NATURAL), dict(purpose="another"),
])
def test_any_other_argument_draws_other_creatures(other):
    arguments = dict(seed=3, count=8, parts=2, coherence=FREE)
    creatures = [trial.creature for trial in draw_trials(**arguments)]
    assert not any(trial.creature in creatures for trial in draw_trials(**arguments | other))


@pytest.mark.parametrize("parts", range(1, len(PARTS) + 1))
def test_each_trial_gives_as_many_parts_as_asked_and_the_creature_has_them(parts):
    for trial in draw_trials(0, 12, parts, FREE):
        assert len(set(trial.parts)) == parts and set(trial.parts) <= set(trial.creature.parts)


def test_coherence_is_the_share_of_attributes_that_follow_the_species():
    for coherence, least, most in ((FREE, 0.1, 0.2), (NATURAL, 0.8, 0.87), (1.0, 1.0, 1.0)):
        followed = [
            trial.creature.attributes[name] == value
            for trial in draw_trials(0, 200, 1, coherence)
            for name, value in typical_attributes(trial.creature.species).items()
        ]
        assert least <= sum(followed) / len(followed) <= most


def test_scenes_are_drawn_from_the_wanted_ones():
    assert {trial.creature.scene for trial in draw_trials(0, 60, 2, FREE)} == set(SCENES)
    two = {trial.creature.scene for trial in draw_trials(0, 60, 2, FREE, ["sky", "lava"])}
    assert two == {"sky", "lava"}


def test_a_caption_names_only_the_scene():
    assert [scene_caption(scene) for scene in ("white", "night")] == ["a creature", "a creature at night"]
    trial = draw_trials(0, 1, 2, FREE, ["meadow"])[0]
    assert trial.caption == "a creature in a meadow"


def test_targets_are_what_each_given_part_shows():
    trials = draw_trials(1, 6, 3, FREE)
    for trial, targets in zip(trials, all_targets(trials), strict=True):
        shown = torch.tensor([labels(trial.creature, part) for part in trial.parts])
        assert torch.equal(targets, shown.max(dim=0).values) and (targets >= 0).sum() >= 3


def test_part_pictures_come_in_the_order_of_the_parts():
    trial = draw_trials(0, 1, 3, FREE)[0]
    turned = Trial(trial.creature, trial.parts[::-1])
    pictures = [picture.tobytes() for picture in trial.part_pictures()]
    assert [picture.tobytes() for picture in turned.part_pictures()] == pictures[::-1]


def test_the_encoder_sees_the_creature_on_white():
    meadow, lava = (draw_trials(0, 1, 1, FREE, [scene])[0].creature for scene in ("meadow", "lava"))
    assert whole_view(meadow).size == (ENCODER_SIZE, ENCODER_SIZE)
    assert whole_view(meadow).getpixel((0, 0)) == (255, 255, 255)
    assert whole_view(meadow).tobytes() == whole_view(lava).tobytes()
    assert true_pictures([meadow])[0].tobytes() != true_pictures([lava])[0].tobytes()


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_named(seed):
    message = f"seed between 0 and {MAX_SEED}, got {seed}"
    for call in (lambda: check_seed(seed), lambda: draw_trials(seed, 1, 1, FREE)):
        with pytest.raises(ValueError, match=message):
            call()
    assert len(draw_trials(MAX_SEED, 1, 1, FREE)) == 1


@pytest.mark.parametrize("parts", [0, -2, len(PARTS) + 1])
def test_an_impossible_number_of_parts_is_named(parts):
    with pytest.raises(ValueError, match=f"Expected 1 to {len(PARTS)} parts of a creature, got {parts}"):
        draw_trials(0, 1, parts, FREE)
