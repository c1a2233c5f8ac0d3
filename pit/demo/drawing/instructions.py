"""What can be said of a creature in a word or two, and the creature that is as the words say."""
from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .creature import ATTRIBUTES, Creature, visible_slots

# Nouns that are said as adjectives as well.
SYNONYMS = {"spots": ("spots", "spotted"), "stripes": ("stripes", "striped"), "scales": ("scales", "scaly")}
# Bodies, whose words are not those of any other part.
OWN_WORDS = ("pear", "tall", "boxy", "ghost")


@dataclass(frozen=True)
class Instruction:
    """A value for one of `ATTRIBUTES`."""

    attribute: str
    value: str

    @property
    def slot(self) -> str:
        """The part that it belongs to, or "pattern"."""
        return self.attribute.removesuffix("_color")

    @property
    def phrases(self) -> tuple[str, ...]:
        """All ways to say it, the shortest one first: "red", "red body"; "no wings"; "spots", "spotted"."""
        if self.attribute == "pattern":
            return SYNONYMS.get(self.value, (self.value,))
        whole = f"{'no' if self.value == 'none' else self.value} {self.slot}"
        # A color alone is that of the body, as in "a red creature".
        is_short = self.attribute == "body_color" or self.attribute == "body" and self.value in OWN_WORDS
        return (self.value, whole) if is_short else (whole,)

    def followed(self, creature: Creature) -> Creature:
        """The creature, but as it says."""
        return replace(creature, attributes=creature.attributes | {self.attribute: self.value})


INSTRUCTIONS = tuple(Instruction(name, value) for name, values in ATTRIBUTES.items() for value in values)
MEANING: Mapping[str, Instruction] = {phrase: each for each in INSTRUCTIONS for phrase in each.phrases}
PHRASES = tuple(MEANING)


def fitting_attributes(creature: Creature) -> list[str]:
    """The attributes whose change would show: not the colors of absent parts, nor what a view hides."""
    shown = visible_slots(creature)
    colored = {f"{slot}_color" for slot in shown if creature.attributes[slot] != "none"}
    return [name for name in ATTRIBUTES if name in shown | colored]


def sample_instruction(creature: Creature, rng: random.Random, attribute: str | None = None) -> Instruction:
    """An instruction for something about a creature that shows; now and then it is so already.

    Args:
        attribute: what it is about; drawn when not given.
    """
    name = attribute or rng.choice(fitting_attributes(creature))
    return Instruction(name, rng.choice(ATTRIBUTES[name]))


def instruction_for(creature: Creature, attribute: str) -> Instruction:
    """The instruction that describes an attribute of a creature as it is."""
    return Instruction(attribute, creature.attributes[attribute])
