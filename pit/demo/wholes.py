"""Wholes and what they are made from: a creature in a pose, and the creatures that its parts come from."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .drawing.composition import Composition, compose
from .drawing.creature import PARTS, Creature, sample_creature
from .drawing.mixture import reshaped, with_parts_of
from .drawing.pose import FRONT, NEUTRAL, sample_pose
from .drawing.variety import random_ground, varied_creature

EVERYTHING = "creature"
"""The label of a reference that shows all parts; that of one part is its own name."""
LABELS = (*PARTS, EVERYTHING)
# Of the wholes: those whose pose map shows other shapes of some parts, as that of another creature would, and
# those whose parts are all of one creature.
RESHAPED_SHARE, ENTIRE_SHARE = 0.3, 0.15
MOST_RESHAPED = 5
# Of those whose parts are all of one creature, how often they are given together, by one reference.
TOGETHER_SHARE = 0.6
GIVEN = (1, 2, 3, 3, 5, 5)  # how many parts are given
POSED_SHARE, WHITE_SHARE = 0.75, 0.4
# Of the references: as they stand on white, and posed on any ground; the others stand on any ground.
PLAIN_REFERENCES, POSED_REFERENCES = 0.6, 0.2


@dataclass(frozen=True)
class Whole:
    """A picture to make, and what it is made from.

    Attributes:
        target: the picture.
        sources: for each part that it has, the number of the creature that this part comes from.
        figure: the creature whose label map is the pose: the target, but for the shapes of some parts.
        reshaped: these parts, which nothing but their references tells.
        entire: whether all parts come from one creature.
    """

    target: Composition
    sources: dict[str, int]
    figure: Creature
    reshaped: tuple[str, ...]
    entire: bool


def sample_reference(rng: random.Random) -> Composition:
    """A picture of a creature that parts come from."""
    creature, drawn = varied_creature(rng), rng.random()
    if drawn < PLAIN_REFERENCES:
        return compose(creature)
    pose = sample_pose(rng, FRONT) if drawn < PLAIN_REFERENCES + POSED_REFERENCES else NEUTRAL
    scene, ground = random_ground(rng)
    return compose(replace(creature, pose=pose), scene=scene, ground=ground)


def sample_whole(rng: random.Random, creatures: Sequence[Creature]) -> Whole:
    """Draw a whole at random.

    Args:
        creatures: that parts may come from; each part is there in some of them.
    """
    kind = rng.random()
    entire = RESHAPED_SHARE <= kind < RESHAPED_SHARE + ENTIRE_SHARE
    if entire:
        number = rng.randrange(len(creatures))
        sources = dict.fromkeys(creatures[number].parts, number)
        creature = creatures[number]
    else:
        creature, sources = sample_mixture(rng, creatures)
    changed = []
    if kind < RESHAPED_SHARE:
        changed = rng.sample(creature.parts, rng.randint(1, min(MOST_RESHAPED, len(creature.parts))))
    pose = sample_pose(rng) if rng.random() < POSED_SHARE else NEUTRAL
    creature = replace(creature, pose=pose)
    scene, ground = ("white", None) if rng.random() < WHITE_SHARE else random_ground(rng)
    figure = reshaped(creature, changed, rng)
    return Whole(compose(creature, scene=scene, ground=ground), sources, figure, tuple(changed), entire)


def sample_mixture(rng: random.Random, creatures: Sequence[Creature]) -> tuple[Creature, dict[str, int]]:
    """A creature each part of which comes from another one, and the numbers of these by part."""
    creature = sample_creature(rng, 0.0)
    sources = {part: number_with(rng, creatures, part) for part in creature.parts}
    given = {part: creatures[number] for part, number in sources.items()}
    return with_parts_of(creature, given), sources


def number_with(rng: random.Random, creatures: Sequence[Creature], part: str) -> int:
    """The number of a random creature that has this part."""
    while True:
        number = rng.randrange(len(creatures))
        if creatures[number].attributes[part] != "none":
            return number


def sample_given(whole: Whole, rng: random.Random) -> list[str]:
    """The labels of the references that are given of a whole: all that the pose does not tell, and others."""
    if whole.entire and rng.random() < TOGETHER_SHARE:
        return [EVERYTHING]
    others = [part for part in whole.sources if part not in whole.reshaped]
    rng.shuffle(others)
    return [*whole.reshaped, *others][:max(rng.choice(GIVEN), len(whole.reshaped))]
