"""What a creature is (a style for each slot, colors, a scene, a little jitter), and how to describe it."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .pose import BACK, NEUTRAL, Pose

# Eight colors far apart, so that they can be told apart even on small parts. Their names are words of the
# captions that the text encoders were trained on, hence "grey".
COLORS = {
    "red": (224, 54, 54),
    "orange": (247, 146, 36),
    "yellow": (252, 220, 74),
    "green": (84, 176, 74),
    "blue": (66, 142, 236),
    "purple": (140, 82, 206),
    "pink": (250, 158, 204),
    "grey": (112, 116, 134),
}
COLOR_NAMES = list(COLORS)
# The order of these lists is part of the trained models and of the data sets: labels are indices into them.
STYLES = {
    "body": ["round", "pear", "tall", "boxy", "ghost"],
    "pattern": ["plain", "belly", "spots", "stripes", "scales"],
    "eyes": ["round", "cyclops", "triple", "sleepy", "slit", "sparkle"],
    "mouth": ["smile", "fangs", "open", "zigzag", "beak", "buck"],
    "horns": ["none", "cone", "ram", "antlers", "antennae", "sprout", "unicorn"],
    "ears": ["none", "round", "pointy", "bunny", "floppy", "fin"],
    "wings": ["none", "bat", "feather", "butterfly", "leaf", "dragonfly"],
    "arms": ["none", "stub", "claw", "flipper", "paw", "pincer"],
    "legs": ["none", "stub", "claw", "tentacle", "paw", "spider"],
    "tail": ["none", "spade", "fluffy", "fish", "bolt", "curl", "flame"],
}
# Eyes, mouths and patterns have no color of their own: at the encoder's 64 pixels it would be hard to read.
COLORED = ["body", "horns", "ears", "wings", "arms", "legs", "tail"]
PARTS = ["body", "eyes", "mouth", "horns", "ears", "wings", "arms", "legs", "tail"]
ATTRIBUTES = STYLES | {f"{slot}_color": COLOR_NAMES for slot in COLORED}
SCENE_WORDS = {
    "white": "",
    "sky": " in the sky",
    "night": " at night",
    "meadow": " in a meadow",
    "lava": " on lava",
    "snow": " in the snow",
    "desert": " in a desert",
    "beach": " on a beach",
    "forest": " in a forest",
    "cave": " in a cave",
    "sea": " under the sea",
    "swamp": " in a swamp",
    "candy": " in candy land",
}
SCENES = list(SCENE_WORDS)
UNSEEN = -100  # the target that PyTorch's cross-entropy ignores
# Words that the shipped models know one by one but have never read together: an IP-LoRA teaches the pairs.
TAUGHT_SCENE_WORDS = {
    "night_meadow": " in a night meadow",
    "lava_meadow": " in a lava meadow",
    "night_lava": " on night lava",
    "sky_lava": " on sky lava",
}
ALL_SCENE_WORDS = SCENE_WORDS | TAUGHT_SCENE_WORDS
SPECIES = {  # a preferred style for each slot, then three colors: body and limbs, wings and tail, horns
    "ember": dict(
        body="pear", pattern="scales", eyes="slit", mouth="fangs", horns="ram",
        ears="none", wings="bat", arms="claw", legs="claw", tail="flame",
        palette=("red", "orange", "yellow"),
    ),
    "tide": dict(
        body="round", pattern="spots", eyes="round", mouth="open", horns="none",
        ears="fin", wings="none", arms="pincer", legs="tentacle", tail="fish",
        palette=("blue", "purple", "green"),
    ),
    "moss": dict(
        body="pear", pattern="belly", eyes="sleepy", mouth="smile", horns="antlers",
        ears="floppy", wings="leaf", arms="stub", legs="stub", tail="none",
        palette=("green", "yellow", "orange"),
    ),
    "frost": dict(
        body="boxy", pattern="belly", eyes="round", mouth="fangs", horns="cone",
        ears="round", wings="feather", arms="flipper", legs="paw", tail="fluffy",
        palette=("blue", "grey", "pink"),
    ),
    "storm": dict(
        body="tall", pattern="stripes", eyes="slit", mouth="zigzag", horns="antennae",
        ears="pointy", wings="dragonfly", arms="claw", legs="spider", tail="bolt",
        palette=("yellow", "grey", "red"),
    ),
    "bloom": dict(
        body="round", pattern="spots", eyes="sparkle", mouth="smile", horns="sprout",
        ears="none", wings="butterfly", arms="stub", legs="stub", tail="curl",
        palette=("pink", "purple", "green"),
    ),
    "shade": dict(
        body="ghost", pattern="plain", eyes="cyclops", mouth="zigzag", horns="cone",
        ears="none", wings="bat", arms="claw", legs="none", tail="spade",
        palette=("purple", "grey", "yellow"),
    ),
    "burrow": dict(
        body="tall", pattern="belly", eyes="round", mouth="buck", horns="none",
        ears="bunny", wings="none", arms="paw", legs="paw", tail="fluffy",
        palette=("orange", "yellow", "pink"),
    ),
}
PALETTE_ROLE = dict(body=0, ears=0, arms=0, legs=0, wings=1, tail=1, horns=2)
# No painter uses "size", but dropping it would shift the random numbers after it and change every creature.
JITTERS = [
    "size", "width", "height", "face", "eyes", "mouth", "horns", "ears", "wings", "arms",
    "legs", "tail", "hue", "shade",
]
MAX_SEED = 2**64 - 1  # the largest seed that ComfyUI knows


@dataclass(frozen=True)
class Creature:
    """One creature.

    Attributes:
        species: the species that it was drawn from; its attributes need not follow it.
        attributes: a value for every name of `ATTRIBUTES`.
        jitter: small variations that no word describes, by the names of `JITTERS`, each in -1..1.
        scene: one of `ALL_SCENE_WORDS`.
        pose: how it stands, and from where it is seen.
    """

    species: str
    attributes: dict[str, str]
    jitter: dict[str, float]
    scene: str = "white"
    pose: Pose = NEUTRAL

    @property
    def parts(self) -> list[str]:
        """The parts that it has, in the order of `PARTS`."""
        return [part for part in PARTS if self.attributes[part] != "none"]


def sample_creature(
    rng: random.Random, coherence: float = 0.8, species: str | None = None, scene: str = "white"
) -> Creature:
    """Draw a creature at random.

    Args:
        coherence: chance that an attribute follows the species; 1 = a pure member of it, 0 = a free mixture.
        species: one of `SPECIES`; drawn when not given.
    Raises:
        ValueError: unknown species or scene, or a coherence outside 0..1.
    """
    if species is not None and species not in SPECIES:
        raise ValueError(f"Expected one of the species {', '.join(SPECIES)}, got {species!r}.")
    if scene not in ALL_SCENE_WORDS:
        raise ValueError(f"Expected one of the scenes {', '.join(ALL_SCENE_WORDS)}, got {scene!r}.")
    if not 0 <= coherence <= 1:
        raise ValueError(f"Expected a coherence between 0 and 1, got {coherence}.")
    # A seed means the same creature only as long as these are drawn in this order.
    species = species or rng.choice(list(SPECIES))
    typical = typical_attributes(species)
    attributes = {
        name: typical[name] if rng.random() < coherence else rng.choice(options)
        for name, options in ATTRIBUTES.items()
    }
    jitter = {name: round(rng.uniform(-1, 1), 3) for name in JITTERS}
    return Creature(species, attributes, jitter, scene)


def creature_from_seed(
    seed: int, coherence: float = 0.8, species: str | None = None, scene: str = "white"
) -> Creature:
    """The same creature for the same seed everywhere; see `sample_creature`.

    Raises:
        ValueError: the seed lies outside 0..2**64-1.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"Expected a seed between 0 and {MAX_SEED}, got {seed}.")
    return sample_creature(random.Random(seed), coherence, species, scene)


def with_parts(creature: Creature, parts: Sequence[str], seed: int) -> Creature:
    """The creature, with a random style for each of these parts that it lacks; the others stay as they are.

    Given to creatures of free mixtures, this is the same as drawing until one has all of these parts.
    """
    styles = {}
    for part in parts:
        if creature.attributes[part] == "none":
            # From the seed and the part alone, so that another part beside it changes nothing here.
            rng = random.Random(f"{part}/{seed}")
            styles[part] = rng.choice([style for style in STYLES[part] if style != "none"])
    return replace(creature, attributes=creature.attributes | styles)


def typical_attributes(species: str) -> dict[str, str]:
    """The attributes of a pure member of a species."""
    preferred = SPECIES[species]
    colors = {f"{slot}_color": preferred["palette"][PALETTE_ROLE[slot]] for slot in COLORED}
    return {slot: preferred[slot] for slot in STYLES} | colors


def labels(creature: Creature, part: str | None = None) -> list[int]:
    """One class index for each attribute; -100 where it cannot be seen (absent, or outside the given part).

    A part alone is seen from the front, whatever the pose. -100 is the target that PyTorch's cross-entropy
    ignores.
    """
    # The pattern belongs to the body, though it is a style of its own.
    visible = visible_slots(creature) if part is None else {"body", "pattern"} if part == "body" else {part}
    result = []
    for name, options in ATTRIBUTES.items():
        slot = name.removesuffix("_color")
        absent = name != slot and creature.attributes[slot] == "none"
        result.append(UNSEEN if slot not in visible or absent else options.index(creature.attributes[name]))
    return result


def visible_slots(creature: Creature) -> set[str]:
    """The slots of `STYLES` that its view shows: all but the face and the belly, from behind."""
    if creature.pose.view != BACK:
        return set(STYLES)
    hidden = {"pattern"} if creature.attributes["pattern"] in ("plain", "belly") else set()
    return set(STYLES) - {"eyes", "mouth"} - hidden


def part_words(creature: Creature, part: str) -> str:
    """A part in words: "red bat wings"."""
    values = creature.attributes
    if part == "body":
        pattern = "" if values["pattern"] == "plain" else f" with {values['pattern']}"
        return f"{values['body_color']} {values['body']} body{pattern}"
    color = f"{values[part + '_color']} " if part in COLORED else ""
    return f"{color}{values[part]} {part}"
