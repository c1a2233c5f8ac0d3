"""The texts that part words are learned in, as tokens."""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...training.stable_diffusion import END, LENGTH, PADS, START, clip_tokenizer
from .recipes import PartRecipe

# Of the published code, which took them from textual inversion (arXiv 2208.01618).
BEGINNINGS = (
    "a photo of a", "a rendering of a", "a cropped photo of the", "the photo of a", "a photo of a clean",
    "a photo of a dirty", "a dark photo of the", "a photo of my", "a photo of the cool",
    "a close-up photo of a", "a bright photo of the", "a cropped photo of a", "a photo of the",
    "a good photo of the", "a photo of one", "a close-up photo of the", "a rendition of the",
    "a photo of the clean", "a rendition of a", "a photo of a nice", "a good photo of a",
    "a photo of the nice", "a photo of the small", "a photo of the weird", "a photo of the large",
    "a photo of a cool", "a photo of a small",
)
Piece = str | int
"""Of a text: letters, or the number of a part, whose word stands there."""


def text_of(parts: Sequence[int], recipe: PartRecipe, rng: random.Random) -> list[Piece]:
    """A text for a picture with these parts, as published: their words, often in a sentence."""
    # Everything is drawn in any case: what is drawn after it does not depend on the settings.
    order, beginning = rng.sample(list(parts), len(parts)), rng.choice(BEGINNINGS)
    framed, dropped = rng.random() < recipe.templates, rng.random() < recipe.dropping
    words = order if recipe.shuffle else list(parts)
    if dropped:
        words = words[:recipe.kept or max(1, len(words) // 2)]
    return [beginning if framed else "", *words, recipe.class_name]


@dataclass(frozen=True)
class Tokens:
    """How texts become tokens for the text encoders of a base.

    Attributes:
        plain: the tokens of letters, without those of beginning and end.
        begin, end: the tokens around each text.
        words: the token of each part's word, above all others.
        pads: what fills up a text for each encoder.
        length: of all texts.
    """

    plain: Callable[[str], list[int]]
    begin: int
    end: int
    words: tuple[int, ...]
    pads: tuple[int, ...]
    length: int = LENGTH

    def ids(self, pieces: Sequence[Piece]) -> Tensor:
        """A text for each encoder, `[E,T]`; what is too long is cut off."""
        inner: list[int] = []
        for piece in pieces:
            inner += [self.words[piece]] if isinstance(piece, int) else self.plain(piece) if piece else []
        row = [self.begin, *inner[:self.length - 2], self.end]
        return torch.tensor([row + [pad] * (self.length - len(row)) for pad in self.pads])


def clip_tokens(parts: int, encoders: int) -> Tokens:
    """CLIP's tokens, with a word for each of so many parts behind its own.

    Args:
        encoders: 1 for SD 1.5, 2 for SDXL.
    """
    tokenizer = clip_tokenizer(PADS["tokenizer"])
    begin, end = tokenizer.convert_tokens_to_ids([START, END])
    words = tuple(range(len(tokenizer), len(tokenizer) + parts))

    def plain(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    # The second encoder's padding is the token 0.
    return Tokens(plain, begin, end, words, (end, 0)[:encoders])
