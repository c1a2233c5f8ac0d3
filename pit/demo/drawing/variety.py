"""How varied creatures and grounds are in what models learn from."""
from __future__ import annotations

import random

from .canvas import Color
from .creature import Creature, sample_creature
from .scenes import SCENE

# Values and their shares. Mostly free mixtures: from coherent creatures alone, models learn the species
# instead of the parts (a prototype kept 80% of coherent parts, but 17% of freely mixed ones, where chance is
# 14%).
COHERENCE = ((0.0, 0.60), (0.5, 0.25), (0.85, 0.15))
WHITE_SHARE, PLAIN_SHARE = 0.15, 0.15  # of the grounds; the others are scenes


def varied_creature(rng: random.Random) -> Creature:
    """A creature that is a free mixture, half free, or close to its species."""
    values, shares = zip(*COHERENCE, strict=True)
    return sample_creature(rng, rng.choices(values, shares)[0])


def random_ground(rng: random.Random) -> tuple[str, Color | None]:
    """The name of a scene, and a plain color in its place now and then."""
    drawn = rng.random()
    if drawn < WHITE_SHARE:
        return "white", None
    if drawn < WHITE_SHARE + PLAIN_SHARE:
        return "white", tuple(rng.randrange(256) for _ in range(3))
    return rng.choice(list(SCENE)), None
