"""Part words in the text encoders of a CLIP: what CLIP Text Encode makes of `<head:17>`."""
from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from comfy.sd import CLIP
from comfy.sd1_clip import SDTokenizer
from torch import Tensor

from ...pit.files.known import first_of
from ...pit.messages import ShortError, quoted
from ...pit.partcraft.files import PartWords
from ...pit.partcraft.mapper import for_encoders
from ...pit.partcraft.prompt import WORD, PartWord, read_prompt
from ..bridge.errors import InputProblem
from ..bridge.feedback import say_where_it_runs

PART_WORDS = "part_words"  # in a conditioning: the words of its prompt, and their places in it
MARK = "part_word"  # the attribute of an embedding that is a part word
PROCESS, ENCODE = "process_tokens", "encode_token_weights"
BASES = (["clip_l"], ["clip_h"], ["clip_l", "clip_g"])  # the encoders of SD 1.5, SD 2 and SDXL, in order
WINDOW = 75  # tokens that CLIP reads at once, without those of beginning and end
SHOWN = 6
Tokens = dict[str, list[list[tuple]]]


class Mark(NamedTuple):
    """What a part word is: the number of its part, and the word as people write it."""

    part: int
    text: str


def with_words(clip: CLIP, words: PartWords, syntax: str) -> CLIP:
    """A clone of a CLIP that reads part words, in whatever node encodes a text with it.

    Args:
        syntax: one of `pit.partcraft.prompt.SYNTAXES`.
    Raises:
        ValueError: its text encoders are not those of the base that the words were made with.
    """
    names = text_encoders(clip)
    widths = [_width(clip, name) for name in names]
    for_encoders(torch.zeros(words.dim), widths)
    patched, tokenizer = clip.clone(), copy.copy(clip.tokenizer)
    for place, name in enumerate(names):
        reader = WordReader(getattr(tokenizer, name).tokenizer, words, widths, place, syntax)
        setattr(tokenizer, name, reading(getattr(tokenizer, name), reader))
        _patch(patched, f"{name}.{PROCESS}", PooledAtWords)
    tokenizer.tokenize_with_weights = Noting(tokenizer)
    patched.tokenizer = tokenizer
    _patch(patched, ENCODE, WithPlaces)
    return patched


def text_encoders(clip: CLIP | None, node: str = "Apply PartCraft") -> list[str]:
    """The names of a CLIP's text encoders, in the order in which words are split over them."""
    tokenizers = {} if clip is None else vars(clip.tokenizer)  # ComfyUI gives None for a file without one
    found = [name for name, each in tokenizers.items() if isinstance(each, SDTokenizer)]
    names = next((base for base in BASES if set(base) == set(found)), None)
    if names is None:
        raise ValueError(
            f"{node} expected the CLIP of SD 1.5, SD 2 or SDXL, got one with the text encoders "
            f"{first_of(found) or 'of another kind'}. Connect the CLIP of the base that the words were made "
            "with."
        )
    return names


def _width(clip: CLIP, name: str) -> int:
    encoder = getattr(clip.cond_stage_model, name)
    return encoder.transformer.get_input_embeddings().weight.shape[1]


def _patch(clip: CLIP, name: str, kind: Callable[[Callable], Callable]) -> None:
    """Put one of our functions around a function of the text encoders; once, however often it is asked."""
    function = clip.patcher.get_model_object(name)
    clip.patcher.add_object_patch(name, function if isinstance(function, kind) else kind(function))


class WordReader:
    """In place of an encoder's inner tokenizer: the same, but part words become embeddings of their own.

    ComfyUI has taken its weights out of the text before, and lays out windows and their padding behind.
    """

    def __init__(self, plain: Any, words: PartWords, widths: Sequence[int], place: int, syntax: str):
        """`place`: which of the encoders, which have these `widths`."""
        # The last Apply PartCraft counts: two collections may call different parts by one name.
        self.plain = plain.plain if isinstance(plain, WordReader) else plain
        self.words, self.widths, self.place, self.syntax = words, widths, place, syntax

    def __call__(self, text: str, **options: Any) -> dict[str, list[int | Tensor]]:
        """The tokens of a text. Raises ValueError for a part word that there is not."""
        empty = self.plain("", **options)["input_ids"]
        found: list[int | Tensor] = []
        for piece in self.pieces(text):
            if isinstance(piece, PartWord):
                found.append(self.vector(piece))
            else:
                found += self.plain(piece, **options)["input_ids"][1:-1]
        return {"input_ids": [empty[0], *found, empty[-1]]}

    def pieces(self, text: str) -> list[str | PartWord]:
        """A text and its part words, in its order; errors as in `__call__`."""
        try:
            return read_prompt(text, self.words.vocabulary, self.syntax)
        except ShortError as error:
            # Raised in a node of ComfyUI, whose errors are shown as they are.
            raise InputProblem(str(error)) from None

    def vector(self, word: PartWord) -> Tensor:
        """The embedding of a word, marked as such."""
        vector = for_encoders(self.words.of([word])[0], self.widths)[self.place].clone()
        # As an attribute, so that it is an embedding like any other to everything else.
        setattr(vector, MARK, Mark(word.part, self.words.vocabulary.text(word)))
        return vector

    def __getattr__(self, name: str) -> Any:
        if name == "plain":  # not there yet, in a copy that is being made
            raise AttributeError(name)
        return getattr(self.plain, name)


def reading(tokenizer: SDTokenizer, reader: WordReader) -> SDTokenizer:
    """A copy of a tokenizer that reads part words."""
    twin = copy.copy(tokenizer)
    twin.tokenizer = reader
    twin.tokenize_with_weights = Escaping(twin)
    return twin


class Escaping:
    """In place of a tokenizer's `tokenize_with_weights`: parentheses in part words are no weights."""

    def __init__(self, tokenizer: SDTokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text: str, *more: Any, **options: Any) -> list[list[tuple]]:
        escaped = WORD.sub(lambda match: re.sub(r"(?<!\\)([()])", r"\\\1", match[0]), text)
        return type(self.tokenizer).tokenize_with_weights(self.tokenizer, escaped, *more, **options)


class Noting:
    """In place of `tokenize_with_weights` of all tokenizers together: tells what a long prompt comes to."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def __call__(self, text: str, *more: Any, **options: Any) -> Tokens:
        tokens = type(self.tokenizer).tokenize_with_weights(self.tokenizer, text, *more, **options)
        note = note_on_windows(tokens)
        if note:
            say_where_it_runs(note)
        return tokens


def note_on_windows(tokens: Tokens) -> str:
    """What becomes of the part words of a prompt that is longer than CLIP reads at once; "" if none does."""
    rows = next(iter(tokens.values()))
    later = [mark.text for row in rows[1:] for _, mark in marks_in(row)]
    if not later:
        return ""
    return (
        f"CLIP reads {WINDOW} tokens at once, and this prompt takes {len(rows)} such windows. Nothing is cut "
        f"off, but a word knows only its own window: behind the first are {first_of(later, SHOWN)}."
    )


def marks_in(row: Sequence[Any]) -> Iterator[tuple[int, Mark]]:
    """The part words among tokens, or tokens with their weights, and their places."""
    for place, each in enumerate(row):
        token = each[0] if isinstance(each, tuple) else each
        mark = getattr(token, MARK, None)
        if isinstance(mark, Mark):
            yield place, mark


class PooledAtWords:
    """In place of an encoder's `process_tokens`: takes the pooled vector where PartCraft does.

    That is the first mention of the last part, see `pit.partcraft.mapper.pooled_places`.
    """

    def __init__(self, process: Callable[..., tuple]):
        self.process = process

    def __call__(self, tokens: Sequence[Sequence[Any]], device: torch.device) -> tuple:
        embeddings, mask, counts, info = self.process(tokens, device)
        return embeddings, mask, [_read_until(*each) for each in zip(tokens, counts, strict=True)], info


def _read_until(row: Sequence[Any], count: int) -> int:
    """Up to which token a text goes, as the encoder counts it: it takes the pooled vector at the last."""
    found = list(marks_in(row))
    last = max((mark.part for _, mark in found), default=None)
    return next((place + 1 for place, mark in found if mark.part == last), count)


class WithPlaces:
    """In place of `encode_token_weights`: the conditioning also tells where part words stand in it."""

    def __init__(self, encode: Callable[[Tokens], tuple]):
        self.encode = encode

    def __call__(self, tokens: Tokens) -> tuple:
        encoded = self.encode(tokens)
        found = places_of_words(tokens)
        if not found:
            return encoded
        more = encoded[2] if len(encoded) > 2 else {}
        return (*encoded[:2], {**more, PART_WORDS: found})


def places_of_words(tokens: Tokens) -> dict[str, list[int]]:
    """The places of each part word in the context that a text becomes."""
    found: dict[str, list[int]] = {}
    start = 0
    for row in next(iter(tokens.values())):
        for place, mark in marks_in(row):
            found.setdefault(mark.text, []).append(start + place)
        start += len(row)
    return found


def words_of_conditioning(conditioning: list, node: str) -> tuple[Tensor, dict[str, list[int]]]:
    """The context `[1,T,C]` of the first prompt that has part words, and their places in it.

    Raises:
        ValueError: none has.
    """
    for context, more in conditioning:
        if more.get(PART_WORDS):
            return context, more[PART_WORDS]
    raise ValueError(
        f"{node} expected a prompt with part words, got {quoted(len(conditioning))} without any. Encode it "
        "with the CLIP of Apply PartCraft, and write a word such as <head:17> into it."
    )
