"""What the measures ask of the creatures' pOps operators: unseen creatures, and what is to become of them."""
from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from ..drawing.composition import compose, draw_composition
from ..drawing.creature import ATTRIBUTES, UNSEEN, Creature
from ..drawing.instructions import Instruction, fitting_attributes, sample_instruction
from ..drawing.scenes import SCENE_NAMES, draw_scene
from ..drawing.things import Thing, draw_thing, sample_thing
from ..models.reader import Reading
from ..models.sizes import PICTURE_SIZE
from ..training.data import draw_patch
from ..training.truth import pair_of
from .scores import found_things, kept, targets_of
from .trials import FREE, Trial, draw_trials, true_pictures

TEXTURE = ("pattern", "body_color")
Score = Callable[[Reading], Tensor]
"""Of each of N pictures, in 0..1."""


@dataclass(frozen=True)
class OperatorTrials:
    """N tasks for an operator, or for several of them in a row.

    Attributes:
        given: the pictures of each slot.
        results: what is to come out, as it is drawn.
        scores: what is measured of the pictures that come out, by its name.
        said: what is said of the first picture, one of its phrases for each.
    """

    given: tuple[list[Image.Image], ...]
    results: list[Image.Image]
    scores: Mapping[str, Score]
    said: list[Instruction] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)


def texture_trials(seed: int, count: int) -> OperatorTrials:
    """Creatures, and patches of the bodies of others."""
    first, second = unseen(seed, count, "texture"), unseen(seed, count, "texture, patches")
    rng = random.Random(f"patches/{seed}")
    results = [textured(a, b) for a, b in zip(first, second, strict=True)]
    targets = all_attributes(results)
    return OperatorTrials(
        (true_pictures(first), [draw_patch(each, rng) for each in second]), true_pictures(results),
        {
            "other attributes kept": keeps(targets, TEXTURE),
            "pattern and color taken": takes(targets, TEXTURE),
        },
    )


def scene_trials(seed: int, count: int) -> OperatorTrials:
    """Creatures in one scene, and another scene without anything in it."""
    first, rng = unseen(seed, count, "scene"), random.Random(f"scenes/{seed}")
    results = [replace(each, scene=other_scene(each, rng)) for each in first]
    return OperatorTrials(
        (true_pictures(first), [draw_scene(each.scene, PICTURE_SIZE) for each in results]),
        true_pictures(results),
        {"attributes kept": keeps(all_attributes(results)), "scene as in the second": shows_scenes(results)},
    )


def union_trials(seed: int, count: int) -> OperatorTrials:
    """Creatures, and things on white."""
    first, rng = unseen(seed, count, "union"), random.Random(f"things/{seed}")
    things = [sample_thing(rng) for _ in first]
    results = [
        draw_composition(compose(each, [thing], scene=each.scene, rng=rng), PICTURE_SIZE)
        for each, thing in zip(first, things, strict=True)
    ]
    return OperatorTrials(
        (true_pictures(first), [draw_thing(thing, PICTURE_SIZE) for thing in things]), results,
        {
            "creature's attributes kept": keeps(all_attributes(first)),
            "thing's kind and color": shows_things(things),
        },
    )


def instruct_trials(seed: int, count: int) -> OperatorTrials:
    """Creatures, and a word or two about one attribute that is not so yet."""
    first, rng = unseen(seed, count, "instruct"), random.Random(f"words/{seed}")
    said = [new_instruction(each, rng) for each in first]
    results = [each.followed(creature) for each, creature in zip(said, first, strict=True)]
    targets = all_attributes(results)
    return OperatorTrials(
        (true_pictures(first),), true_pictures(results),
        {
            "word followed": follows(targets, said),
            "other attributes kept": keeps_others(targets, said, first),
        },
        said, [rng.choice(each.phrases) for each in said],
    )


def chain_trials(seed: int, count: int) -> OperatorTrials:
    """Creatures, a word about each, a scene, and a patch of a body."""
    first, second = unseen(seed, count, "chain"), unseen(seed, count, "chain, patches")
    rng = random.Random(f"chain/{seed}")
    # What the patch replaces cannot show what the word has done.
    said = [new_instruction(each, rng, TEXTURE) for each in first]
    results = [
        replace(textured(each.followed(a), b), scene=other_scene(a, rng))
        for each, a, b in zip(said, first, second, strict=True)
    ]
    targets = all_attributes(results)
    scores = {
        "word": follows(targets, said), "scene": shows_scenes(results),
        "texture": takes_all(targets, TEXTURE),
    }
    return OperatorTrials(
        (
            true_pictures(first), [draw_scene(each.scene, PICTURE_SIZE) for each in results],
            [draw_patch(each, rng) for each in second],
        ),
        true_pictures(results),
        scores | {
            "all three": lambda reading: torch.stack([each(reading) for each in scores.values()]).amin(dim=0),
            "other attributes kept": keeps_others(targets, said, first, TEXTURE),
        },
        said, [rng.choice(each.phrases) for each in said],
    )


def part_trials(seed: int, count: int, parts: int) -> list[Trial]:
    """Parts of creatures on white."""
    return draw_trials(seed, count, parts, FREE, ["white"], purpose="compose")


# Creatures ------------------------------------------------------------------------------------------------


def unseen(seed: int, count: int, purpose: str) -> list[Creature]:
    """Free mixtures in any scene."""
    return [trial.creature for trial in draw_trials(seed, count, 1, FREE, purpose=f"pops {purpose}")]


def textured(creature: Creature, other: Creature) -> Creature:
    """A creature with the body color and the pattern of another one."""
    worn = {name: other.attributes[name] for name in TEXTURE}
    return replace(creature, attributes=creature.attributes | worn)


def other_scene(creature: Creature, rng: random.Random) -> str:
    return rng.choice([name for name in SCENE_NAMES if name != creature.scene])


def new_instruction(creature: Creature, rng: random.Random, but: Collection[str] = ()) -> Instruction:
    """An instruction that changes the creature, and none of some attributes."""
    while True:
        attribute = rng.choice([name for name in fitting_attributes(creature) if name not in but])
        said = sample_instruction(creature, rng, attribute)
        if said.value != creature.attributes[attribute]:
            return said


# Scores ---------------------------------------------------------------------------------------------------


def all_attributes(creatures: list[Creature]) -> Tensor:
    """What creatures show, `[N, A]`, -100 = not shown."""
    return torch.stack([targets_of(each) for each in creatures])


def among(names: Collection[str]) -> Tensor:
    """Which of the attributes these are, bool `[A]`."""
    return torch.tensor([name in names for name in ATTRIBUTES])


def keeps(targets: Tensor, but: Collection[str] = ()) -> Score:
    """The share of all attributes, without some, that a picture shows as wanted; `targets [N, A]`."""
    wanted = targets.masked_fill(among(but), UNSEEN)
    return lambda reading: kept(reading, wanted)


def takes(targets: Tensor, names: Collection[str]) -> Score:
    """The share of these attributes that a picture shows as wanted."""
    wanted = targets.masked_fill(~among(names), UNSEEN)
    return lambda reading: kept(reading, wanted)


def takes_all(targets: Tensor, names: Collection[str]) -> Score:
    """Whether a picture shows all of these attributes as wanted."""
    share = takes(targets, names)
    return lambda reading: (share(reading) == 1).float()


def follows(targets: Tensor, said: list[Instruction]) -> Score:
    """Whether a picture is as was said."""
    spoken = torch.stack([among([each.attribute]) for each in said])
    wanted = targets.masked_fill(~spoken, UNSEEN)
    return lambda reading: kept(reading, wanted)


def keeps_others(
    targets: Tensor, said: list[Instruction], creatures: list[Creature], but: Collection[str] = ()
) -> Score:
    """The share of the attributes of the creatures that nothing was said about."""
    spoken = [{each.attribute, *but} for each in said]
    for names, each, creature in zip(spoken, said, creatures, strict=True):
        if creature.attributes[each.attribute] == "none":  # its new part may have any color
            names.add(f"{each.attribute}_color")
    wanted = targets.masked_fill(torch.stack([among(names) for names in spoken]), UNSEEN)
    return lambda reading: kept(reading, wanted)


def shows_scenes(creatures: list[Creature]) -> Score:
    """Whether a picture has the scene of its creature."""
    wanted = torch.tensor([SCENE_NAMES.index(each.scene) for each in creatures])
    return lambda reading: (reading.scenes == wanted).float()


def shows_things(things: list[Thing]) -> Score:
    """Whether the most probable thing is seen, and of the kind and of the color that is wanted."""
    wanted = torch.tensor([pair_of(each) for each in things])

    return lambda reading: (
        found_things(reading).any(dim=1) & (reading.things.argmax(dim=1) == wanted)
    ).float()
