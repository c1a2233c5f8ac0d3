"""Prompts for a text-to-image model that draws a whole dataset, in the published form, from our own words."""
from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "words"
# The published pool of words for characters: 445 creatures, 41 times each, among 199,175 entries in all.
CREATURE_SHARE = 445 * 41 / 199_175


def dataset_prompts(domain: str, count: int, seed: int) -> list[str]:
    """`count` prompts, each of one object on a plain ground; number i depends on (domain, seed, i) alone.

    Words and their numbers are drawn as the published data scripts do: characters have two to six adjectives
    and one to three "-like" words, mostly everyday objects; products one to three attributes, one or two
    materials, one feature and up to three "-like" words. For plush toys only word lists are published: one to
    three colours and one or two "-like" words are ours.

    Raises ValueError for an unknown domain and for a count below 1.
    """
    if domain not in WRITERS:
        raise ValueError(f'Expected one of the domains {", ".join(WRITERS)}, found "{domain}".')
    if count < 1:
        raise ValueError(f"Expected at least one prompt to write, found a count of {count}.")
    return [WRITERS[domain](random.Random(f"{seed}/{index}")) for index in range(count)]


def picture_seeds(count: int, seed: int) -> list[int]:
    """A seed of 64 bits for the picture of each prompt; number i depends on (seed, i) alone."""
    return [random.Random(f"{seed}/{index}/picture").getrandbits(64) for index in range(count)]


def _character(rng: random.Random) -> str:
    adjectives = _draw(rng, "adjectives", 2, 6)
    # dict.fromkeys: a word of both lists, or one drawn twice, is named once.
    likes = dict.fromkeys(
        rng.choice(_words("creatures" if rng.random() < CREATURE_SHARE else "everyday"))
        for _ in range(rng.randint(1, 3))
    )
    return (
        "Concept art of a character for an animated film, studio photo: "
        f"one {', '.join(adjectives)} {_alike(likes)} creature "
        "with eyes, arms, legs and a mouth, on a plain white background"
    )


def _product(rng: random.Random) -> str:
    attributes = _draw(rng, "attributes", 1, 3)
    materials = _draw(rng, "materials", 1, 2)
    feature = rng.choice(_words("features"))
    likes = _draw(rng, "everyday", 0, 3)
    name = f"{_alike(likes)} product" if likes else "product"
    return (
        f"Product design photo: one {', '.join(attributes)} {name} "
        f"made of {' and '.join(materials)}, with {feature}, "
        "on a light grey gradient background, soft light"
    )


def _plush(rng: random.Random) -> str:
    colours = _draw(rng, "plush_colours", 1, 3)
    likes = _draw(rng, "plush_items", 1, 2)
    return (
        f"Studio photo: one {', '.join(colours)} {_alike(likes)} plush toy, "
        "on a plain white background, soft light"
    )


WRITERS: dict[str, Callable[[random.Random], str]] = {
    "characters": _character,
    "products": _product,
    "plush": _plush,
}
DOMAINS = tuple(WRITERS)


def _draw(rng: random.Random, name: str, least: int, most: int) -> list[str]:
    return rng.sample(_words(name), rng.randint(least, most))


def _alike(words: list[str] | dict[str, None]) -> str:
    return ", ".join(f"{word}-like" for word in words)


@cache
def _words(name: str) -> tuple[str, ...]:
    return tuple((FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines())
