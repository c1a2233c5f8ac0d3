"""What a sample shows of an encoded example, and which of its conditions are left out.

Source: pOps (arXiv 2406.01300) and its datasets and trainer (github.com/pOpsPaper/pOps).
"""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

SAME_SHARE = 0.2  # of textures whose patch comes from the very picture of the object
SWAP_SHARE = 0.5
# Of the samples, those of random pictures without a condition.
RANDOM_SHARES = {"texture": 0.2, "union": 0.1, "scene": 0.1}
TEXTURE_DROP, TEXTURE_DROP_RANDOM = 0.25, 0.5
DROPS = {"union": 0.2, "scene": 0.1, "instruct": 0.2, "clothes": 0.2}

# The embeddings that the file of an example holds.
STORED: Mapping[str, tuple[str, ...]] = {
    "texture": ("target", "second"), "union": ("target", "first", "second"),
    "scene": ("target", "first", "second"), "instruct": ("target", "words", "sentences"),
    "clothes": ("target", "parts"),
}


class Drawn(NamedTuple):
    """A sample, before anything of it is left out; raw embeddings.

    Attributes:
        slots: of the pictures `[n, E]`.
        target: what is to come out `[E]`.
        word: number of the word behind the pictures; None = the operator hears none.
        words: its last hidden state `[L, E]`.
        sentence: embedding of the sentence that the result is to be near `[E]`.
        is_random: whether the target has nothing to do with any condition.
    """

    slots: Tensor
    target: Tensor
    word: int | None = None
    words: Tensor | None = None
    sentence: Tensor | None = None
    is_random: bool = False


def draw_texture(stored: Mapping[str, Tensor], rng: random.Random) -> Drawn:
    """A picture of the object, a patch of another one, and that other one as the target."""
    whole = stored["target"]
    patches = stored["second"].unflatten(0, (len(whole), -1))
    target = rng.randrange(len(whole))
    others = [number for number in range(len(whole)) if number != target]
    same = rng.random() < SAME_SHARE or not others
    source = target if same else rng.choice(others)
    patch = patches[target, rng.randrange(patches.shape[1])]
    return Drawn(torch.stack([whole[source], patch]), whole[target])


def draw_scene(stored: Mapping[str, Tensor], rng: random.Random) -> Drawn:
    """The object on a plain ground, the scene without it, and the picture as the target."""
    both = [one_of(stored[name], rng) for name in ("first", "second")]
    return Drawn(torch.stack(both), stored["target"][0])


def draw_union(stored: Mapping[str, Tensor], rng: random.Random) -> Drawn:
    """The two things in either order, and the picture as the target."""
    both = [one_of(stored[name], rng) for name in ("first", "second")]
    if rng.random() < SWAP_SHARE:
        both.reverse()
    return Drawn(torch.stack(both), stored["target"][0])


def draw_instruct(stored: Mapping[str, Tensor], rng: random.Random) -> Drawn:
    """The picture, a word, and the picture as the target, which the sentence draws away from it."""
    number = rng.randrange(len(stored["words"]))
    target = stored["target"]
    return Drawn(target[:1], target[0], int(stored["words"][number]), sentence=stored["sentences"][number])


def draw_clothes(stored: Mapping[str, Tensor], rng: random.Random) -> Drawn:
    """All parts in their order, and the whole as the target."""
    return Drawn(stored["parts"], stored["target"][0])


def one_of(rows: Tensor, rng: random.Random) -> Tensor:
    return rows[rng.randrange(len(rows))]


DRAWN: Mapping[str, Callable[[Mapping[str, Tensor], random.Random], Drawn]] = {
    "texture": draw_texture, "scene": draw_scene, "union": draw_union, "instruct": draw_instruct,
    "clothes": draw_clothes,
}


def dropped(mode: str, slots: int, is_random: bool, rng: random.Random) -> list[bool]:
    """Which slots a sample leaves out, with the published probabilities and draws."""
    if mode == "texture":
        first = rng.random() < (TEXTURE_DROP_RANDOM if is_random else TEXTURE_DROP)
        # Nothing is drawn where nothing is left to chance, so that the draws are the published ones.
        return [first, is_random or rng.random() < TEXTURE_DROP]
    return [is_random or rng.random() < DROPS[mode]] * slots
