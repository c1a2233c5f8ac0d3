"""Creatures that are not complete: every flaw is visible, and the same for the same seed."""

import random

import numpy as np
import pytest

from pit.demo.drawing.creature import SCENES, creature_from_seed
from pit.demo.drawing.draw import draw_creature
from pit.demo.drawing.flaws import FLAWS, draw_flawed
from pit.demo.models.sizes import PICTURE_SIZE

CREATURES = [creature_from_seed(seed, 0.0, scene=SCENES[seed % len(SCENES)]) for seed in range(10)]


def flawed(flaw, creature, seed):
    return FLAWS[flaw](creature, random.Random(f"flaw {seed}"))


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_visible(flaw):
    for seed, creature in enumerate(CREATURES):
        before, after = (np.asarray(picture).astype(int) for picture in (
            draw_creature(creature), flawed(flaw, creature, seed)
        ))
        changed = (np.abs(after - before).max(axis=2) > 16).sum()
        assert changed >= 30, f"only {changed} pixels of creature {seed} differ"


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_a_picture_like_others_and_the_same_for_the_same_seed(flaw):
    creature = CREATURES[1]
    first, second = flawed(flaw, creature, 5), flawed(flaw, creature, 5)
    assert (first.mode, first.size) == ("RGB", (PICTURE_SIZE, PICTURE_SIZE))
    assert first.tobytes() == second.tobytes()
    assert len({flawed(flaw, creature, seed).tobytes() for seed in range(12)}) > 1
    assert creature == creature_from_seed(1, 0.0, scene=SCENES[1])


def test_every_flaw_is_drawn_sometimes(monkeypatch):
    for flaw in FLAWS:
        monkeypatch.setitem(FLAWS, flaw, lambda creature, rng, name=flaw: name)
    assert {draw_flawed(CREATURES[0], random.Random(seed)) for seed in range(60)} == set(FLAWS)
