"""Creatures whose parts come from several others, and creatures of other shapes in the same pose."""
from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

from .creature import COLORED, STYLES, Creature

# The small variations of a part bear its name; those of a body do not.
BODY_JITTERS = ("width", "height")


def slots_of(part: str) -> tuple[str, ...]:
    """The names of the attributes that make up a part."""
    if part == "body":
        return "body", "pattern", "body_color"
    return (part, f"{part}_color") if part in COLORED else (part,)


def with_parts_of(creature: Creature, sources: Mapping[str, Creature]) -> Creature:
    """The creature, but for these parts, each of which it takes from another one."""
    attributes, jitter = dict(creature.attributes), dict(creature.jitter)
    for part, source in sources.items():
        attributes |= {name: source.attributes[name] for name in slots_of(part)}
        names = BODY_JITTERS if part == "body" else (part,)
        jitter |= {name: source.jitter[name] for name in names}
    return replace(creature, attributes=attributes, jitter=jitter)


def reshaped(creature: Creature, parts: Iterable[str], rng: random.Random) -> Creature:
    """The creature with another style of each of these parts, which may then be missing."""
    styles = {
        part: rng.choice([style for style in STYLES[part] if style != creature.attributes[part]])
        for part in parts
    }
    return replace(creature, attributes={**creature.attributes, **styles})
