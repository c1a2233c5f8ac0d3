"""Ten edits of creatures, each from one attribute to another, for directions to be found and measured by."""
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .creature import Creature, sample_creature

WARM, COLD = ("red", "orange", "yellow"), ("blue", "purple", "grey")


@dataclass(frozen=True)
class Edit:
    """An edit of one attribute; the same creature may show any of the values before, and of those after."""

    attribute: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def slot(self) -> str:
        return self.attribute.removesuffix("_color")


EDITS: Mapping[str, Edit] = {
    "round to tall body": Edit("body", ("round",), ("tall",)),
    "cold to warm body": Edit("body_color", COLD, WARM),
    "plain to spotted": Edit("pattern", ("plain",), ("spots",)),
    "two eyes to one": Edit("eyes", ("round",), ("cyclops",)),
    "smile to fangs": Edit("mouth", ("smile",), ("fangs",)),
    "no horns to ram's horns": Edit("horns", ("none",), ("ram",)),
    "round to bunny ears": Edit("ears", ("round",), ("bunny",)),
    "no wings to bat wings": Edit("wings", ("none",), ("bat",)),
    "paws to tentacles": Edit("legs", ("paw",), ("tentacle",)),
    "no tail to flame": Edit("tail", ("none",), ("flame",)),
}


def creatures_of(edit: Edit, values: Sequence[str], count: int, rng: random.Random) -> list[Creature]:
    """Free mixtures that share one of the values of the edit's attribute, and nothing else."""
    drawn = (sample_creature(rng, coherence=0.0) for _ in range(count))
    return [
        replace(creature, attributes=creature.attributes | {edit.attribute: rng.choice(values)})
        for creature in drawn
    ]


def both_classes(name: str, count: int, seed: int) -> tuple[list[Creature], list[Creature]]:
    """`count` creatures before the edit of this name, and as many others after it.

    Raises:
        KeyError: there is no edit of this name.
    """
    edit, rng = EDITS[name], random.Random(f"edit/{name}/{seed}")
    return creatures_of(edit, edit.before, count, rng), creatures_of(edit, edit.after, count, rng)
