"""What the base of SD 1.5's structure draws from captions."""
from __future__ import annotations

import random

import torch
from torch import Tensor

from ..drawing.captions import caption
from ..drawing.creature import COLOR_NAMES, UNSEEN, Creature, part_words
from ..drawing.things import THINGS as THING_KINDS
from ..models.reader import Reading
from ..training.data import ALONE, THINGS, WITH_THINGS, TrainingPicture
from ..training.text_unet import MOST_PARTS
from ..training.truth import truth_of
from .estimates import Estimate, mean, share
from .pictures import fresh_pictures
from .scores import NAMES, STYLE_OF, found_things, is_whole, kept, targets_of
from .suite import Laboratory, shares_by_attribute

PAIRS = (len(THING_KINDS), len(COLOR_NAMES))


def measure_captions(lab: Laboratory, count: int) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Creatures alone and pictures of things, `count` of each, drawn from their captions.

    Returns:
        Measures by name; and the shares of every attribute that a caption names, of "scene", and of "things",
        their kinds and their colors.
    """
    measures, shares = captioned_creatures(lab, count)
    things = captioned_things(lab, count)
    return measures | {"words_things": things["things"]}, shares | things


def captioned_creatures(lab: Laboratory, count: int) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Creatures alone; see `measure_captions`."""
    pictures = fresh_pictures(lab.seed, ALONE, count, "words")
    captions = captions_of(pictures, random.Random(f"captions/{lab.seed}"))
    reading, scenes = read_captions(lab, captions), truth_of(pictures).scenes
    wanted = torch.stack([
        named_attributes(text, picture.creature) for text, picture in zip(captions, pictures, strict=True)
    ])
    known = scenes != UNSEEN
    measures = {"words_attributes": mean(kept(reading, wanted)), "words_whole": share(is_whole(reading))}
    shares = shares_by_attribute(reading, wanted)
    return measures, shares | {"scene": share((reading.scenes == scenes)[known])}


def captioned_things(lab: Laboratory, count: int) -> dict[str, Estimate]:
    """Things, half of them alone and half of them beside a creature; see `measure_captions`.

    A picture counts as right if the reader finds every thing that the caption names, and no other.
    """
    pictures = fresh_pictures(lab.seed, THINGS, (count + 1) // 2, "words")
    pictures += fresh_pictures(lab.seed, WITH_THINGS, count // 2, "words")
    reading = read_captions(lab, captions_of(pictures, random.Random(f"captions/{lab.seed}/things")))
    both = [pairs.bool().unflatten(1, PAIRS) for pairs in (found_things(reading), truth_of(pictures).things)]
    views = {
        "things": [pairs.flatten(1) for pairs in both],
        "kind of thing": [pairs.any(dim=2) for pairs in both],
        "color of thing": [pairs.any(dim=1) for pairs in both],
    }
    return {name: share((found == named).all(dim=1)) for name, (found, named) in views.items()}


def read_captions(lab: Laboratory, captions: list[str]) -> Reading:
    """What is read in the pictures that captions lead to."""
    return lab.reader.read(lab.chain.render_words(captions, lab.seed, on_batch=lab.on_pictures))


def captions_of(pictures: list[TrainingPicture], rng: random.Random) -> list[str]:
    """A caption for each picture, of up to nine parts and never just "a creature"."""
    return [caption(picture.composition, rng, MOST_PARTS, plain_share=0) for picture in pictures]


def named_attributes(text: str, creature: Creature) -> Tensor:
    """The attributes of a creature that its caption names, int64 `[A]`; -100 = not named.

    `text` is one of `captions.caption` that says more than "a creature", and so names the body in any case.
    """
    padded = f" {text} "
    # A part is named by a phrase that ends with its own name, so that no other words can be taken for it.
    phrases = {part: part_words(creature, part) for part in creature.parts if part != "body"}
    named = {part for part, phrase in phrases.items() if f" {phrase} " in padded} | {"body"}
    # "Plain" is said of grounds, never of creatures.
    pattern = creature.attributes["pattern"]
    if pattern != "plain" and f" {pattern} " in padded:
        named.add("pattern")
    is_named = torch.tensor([NAMES[style] in named for style in STYLE_OF])
    return targets_of(creature).masked_fill(~is_named, UNSEEN)
