"""Pictures in words: attributes, things, scene, pose and view, now these and now those, in varied phrases."""
from __future__ import annotations

import random

import numpy as np

from .canvas import Color
from .composition import Composition
from .creature import COLORS, SCENE_WORDS, Creature, part_words, visible_slots
from .pose import pose_words
from .things import Thing, thing_words

# Colors that a plain ground may be called by, besides those of the creatures.
GROUND_COLORS = COLORS | {"white": (255, 255, 255), "black": (16, 16, 20), "brown": (122, 78, 50)}
ALIKE = 48  # the distance in RGB within which a ground has the name of a color
BESIDE = ("and", "next to", "beside", "near")
NO_ONE = ("nothing", "an empty picture")
PLAIN = "a creature"  # what the measures ask for: then only the tokens tell what the creature is like


def caption(
    composition: Composition, rng: random.Random, most_parts: int = 5, plain_share: float = 1 / 3
) -> str:
    """A caption of random words and length for a picture; things are always named with their colors.

    Args:
        most_parts: how many parts of a creature are named at most.
        plain_share: how often it says no more of a creature than that it is one.
    """
    shown = composition.creature
    said = creature_phrase(shown, rng, most_parts, plain_share) if shown else ""
    things = [thing_phrase(thing, rng) for thing, _ in composition.things]
    if said and things:
        said = f"{said} {rng.choice(BESIDE)} {' and '.join(things)}"
    elif things:
        said = " and ".join(things)
    where = scene_phrase(composition)
    if said and where and rng.random() < 0.2:
        return f"{where.strip()} {said}"
    return (said or rng.choice(NO_ONE)) + where


def plain_caption(composition: Composition) -> str:
    """The shortest one: "a creature and a red ball in a meadow"."""
    kinds = [PLAIN] if composition.creature else []
    things = [thing_words(thing) for thing, _ in composition.things]
    kinds += [f"{article(words)} {words}" for words in things]
    return (" and ".join(kinds) or NO_ONE[0]) + scene_phrase(composition)


def creature_phrase(
    creature: Creature, rng: random.Random, most_parts: int = 5, plain_share: float = 1 / 3
) -> str:
    """A creature and how it stands; see `caption`."""
    pose = pose_words(creature.pose, creature.parts)
    rng.shuffle(pose)
    # The view is named more often than not: a picture in the wrong one is all wrong.
    told = " ".join(pose[:rng.randint(0, 2)]) if rng.random() < 0.7 else ""
    if rng.random() < plain_share:
        return f"{PLAIN} {told}".strip()
    shown = visible_slots(creature)
    parts = [part_words(creature, part) for part in creature.parts if part in shown - {"body"}]
    rng.shuffle(parts)
    values = creature.attributes
    body = f"{values['body_color']} {values['body']}"
    if "pattern" in shown and values["pattern"] != "plain" and rng.random() < 0.5:
        parts.insert(0, values["pattern"])
    named = " and ".join(parts[:rng.randint(1, most_parts)])
    first = f"{article(body)} {body} creature"
    return " ".join(filter(None, (first, f"with {named}" if named else "", told)))


def thing_phrase(thing: Thing, rng: random.Random) -> str:
    """ "a red ball", or "one red ball"."""
    words = thing_words(thing)
    return f"{article(words) if rng.random() < 0.8 else 'one'} {words}"


def article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def scene_phrase(composition: Composition) -> str:
    """Where it is, with a blank before it; nothing on white."""
    if composition.ground is None:
        above, _, below = composition.scene.partition("_")
        # Mixed as the taught ones are named: the sky of one before the ground of the other.
        return SCENE_WORDS[below].replace(below, f"{above} {below}") if below else SCENE_WORDS[above]
    name = color_name(composition.ground) or "plain"
    return f" on {article(name)} {name} background"


def color_name(color: Color) -> str | None:
    """The name of a color that is close to one that has a name."""
    distances = {name: np.linalg.norm(np.subtract(color, other)) for name, other in GROUND_COLORS.items()}
    name = min(distances, key=distances.get)
    return name if distances[name] <= ALIKE else None
