"""Ten edits of creatures, each of a single attribute, with which directions are found and measured."""
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .creature import Creature, sample_creature

# Green and pink are neither.
WARM, COLD = ("red", "orange", "yellow"), ("blue", "purple", "grey")


@dataclass(frozen=True)
class Edit:
    """An edit of one attribute: from any of the values `before` to any of those `after`."""

    attribute: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def slot(self) -> str:
        """The part that the attribute belongs to."""
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
    """Free mixtures that have in common that the edited attribute has one of `values`, and nothing else."""
    # With coherent creatures the whole species would come along with the attribute.
    drawn = (sample_creature(rng, coherence=0.0) for _ in range(count))
    return [
        replace(creature, attributes=creature.attributes | {edit.attribute: rng.choice(values)})
        for creature in drawn
    ]


def both_classes(name: str, count: int, seed: int) -> tuple[list[Creature], list[Creature]]:
    """`count` creatures as before the edit of this name, and as many other ones as after it.

    Raises:
        ValueError: there is no edit of this name.
    """
    if name not in EDITS:
        raise ValueError(f"Expected one of the differences {', '.join(EDITS)}, got {name!r}.")
    # One generator for both, so that the second class does not repeat the creatures of the first.
    edit, rng = EDITS[name], random.Random(f"edit/{name}/{seed}")
    return creatures_of(edit, edit.before, count, rng), creatures_of(edit, edit.after, count, rng)
