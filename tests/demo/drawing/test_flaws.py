"""Creatures that are not complete: every flaw is visible, and the same for the same seed."""

import random
from dataclasses import replace

import numpy as np
import pytest

from pit.demo.drawing.composition import Composition, compose, draw_composition
from pit.demo.drawing.creature import SCENES, creature_from_seed
from pit.demo.drawing.flaws import FLAWS, flawed, halves, possible_flaws
from pit.demo.drawing.pose import BACK, FRONT, SIDE, VIEWS, sample_pose
from pit.demo.drawing.things import sample_thing
from pit.demo.models.sizes import PICTURE_SIZE

CREATURES = [creature_from_seed(seed, 0.0, scene=SCENES[seed % len(SCENES)]) for seed in range(10)]
ANY_FLAW = next(seed for seed, creature in enumerate(CREATURES) if possible_flaws(creature) == list(FLAWS))


def composed(seed, view=None, things=0):
    """A creature of CREATURES in its scene, in a pose if a view is given."""
    rng, creature = random.Random(f"composition {seed}"), CREATURES[seed]
    if view:
        creature = replace(creature, pose=sample_pose(rng, view))
    return compose(creature, [sample_thing(rng) for _ in range(things)], scene=creature.scene)


def changed_pixels(composition, picture):
    before = np.asarray(draw_composition(composition, PICTURE_SIZE)).astype(int)
    return (np.abs(np.asarray(picture).astype(int) - before).max(axis=2) > 16).sum()


@pytest.mark.parametrize("view", [None, *VIEWS])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_visible(flaw, view):
    for seed in range(len(CREATURES)):
        composition = composed(seed, view, things=seed % 3)
        if flaw in possible_flaws(composition.creature):
            changed = changed_pixels(composition, FLAWS[flaw](composition, random.Random(f"flaw {seed}")))
            assert changed >= 40, f"only {changed} pixels of creature {seed} differ"


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_a_picture_like_others_and_the_same_for_the_same_seed(flaw):
    composition = composed(ANY_FLAW)
    first, second, *others = (
        FLAWS[flaw](composition, random.Random(seed)) for seed in (5, 5, *range(12))
    )
    assert (first.mode, first.size) == ("RGB", (PICTURE_SIZE, PICTURE_SIZE))
    assert first.tobytes() == second.tobytes()
    assert len({picture.tobytes() for picture in others}) > 1
    assert composition == composed(ANY_FLAW)


def test_things_beside_a_half_creature_stay():
    composition = composed(3, things=1)
    left = round((composition.things[0][1].x - 13) * PICTURE_SIZE / 100)
    whole = np.asarray(draw_composition(composition, PICTURE_SIZE))[:, left:]
    for seed in range(4):
        half = FLAWS["half a creature"](composition, random.Random(seed))
        assert np.array_equal(np.asarray(half)[:, left:], whole)


def test_only_flaws_that_show_are_chosen():
    has_all = replace(CREATURES[0], attributes=CREATURES[0].attributes | {"tail": "curl", "arms": "paw"})
    seen = {view: replace(has_all, pose=sample_pose(random.Random(0), view)) for view in VIEWS}
    assert possible_flaws(seen[FRONT]) == list(FLAWS)
    assert set(FLAWS) - set(possible_flaws(seen[SIDE])) == {"half a pair"}
    assert set(FLAWS) - set(possible_flaws(seen[BACK])) == {"a part twice", "a smeared face"}
    bare = has_all.attributes | dict.fromkeys(("horns", "ears", "wings", "arms", "legs", "tail"), "none")
    assert not {"two tails", "half a pair"} & set(possible_flaws(replace(has_all, attributes=bare)))


@pytest.mark.parametrize("swapped", [False, True])
def test_halves_meet_at_the_line(swapped):
    red, blue = Composition(ground=(255, 0, 0)), Composition(ground=(0, 0, 255))
    line = PICTURE_SIZE * 30 // 100
    for angle, picture in ((0, "across"), (90, "down")):
        pixels = np.asarray(halves(red, blue, 30, angle, swapped))
        along = pixels[100] if picture == "across" else pixels[:, 100]
        first, last = (2, 0) if swapped else (0, 2)
        assert along[:line - 2, first].min() == 255 and along[line + 3:, last].min() == 255


def test_every_flaw_is_drawn_sometimes(monkeypatch):
    composition = composed(ANY_FLAW)
    for flaw in FLAWS:
        monkeypatch.setitem(FLAWS, flaw, lambda composition, rng, name=flaw: name)
    assert {flawed(composition, random.Random(seed)) for seed in range(99)} == set(FLAWS)
