"""The texts that words are learned in, and their tokens."""
from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from pit.partcraft.training.recipes import PUBLISHED
from pit.partcraft.training.texts import BEGINNINGS, clip_tokens, text_of

PARTS = [0, 2, 3, 5, 6]


def texts(count=400, parts=PARTS, **changes):
    recipe = replace(PUBLISHED, **changes)
    return [text_of(parts, recipe, random.Random(number)) for number in range(count)]


def words_of(text):
    return [piece for piece in text if isinstance(piece, int)]


def test_half_of_the_texts_begin_as_published_and_all_name_the_parts():
    found = texts()
    begun = Counter(text[0] for text in found)
    assert len(BEGINNINGS) == 27 and begun.keys() == {"", *BEGINNINGS} and 150 < begun[""] < 250
    assert all(sorted(words_of(text)) == PARTS for text in found)
    assert len({tuple(words_of(text)) for text in found}) > 50
    assert all(words_of(text) == PARTS for text in texts(shuffle=False))
    assert {text[0] for text in texts(templates=0.0)} == {""}
    assert "" not in {text[0] for text in texts(templates=1.0)}


@pytest.mark.parametrize("kept, length", [(0, 2), (3, 3), (1, 1), (9, 5)])
def test_words_are_dropped(kept, length):
    found = [len(words_of(text)) for text in texts(dropping=0.5, kept=kept)]
    assert set(found) == {length, 5}
    assert length == 5 or 150 < found.count(length) < 250
    assert {len(words_of(text)) for text in texts(dropping=1.0, kept=kept)} == {length}
    assert {len(words_of(text)) for text in texts(kept=kept)} == {5}


def test_one_part_is_never_dropped_and_none_is_no_error():
    assert all(words_of(text) == [4] for text in texts(parts=[4], dropping=1.0))
    assert all(words_of(text) == [] for text in texts(parts=[], dropping=1.0))


def test_settings_do_not_change_what_else_is_drawn():
    plain, dropped, named = texts(), texts(dropping=1.0), texts(class_name="bird")
    for one, two, three in zip(plain, dropped, named, strict=True):
        assert one[0] == two[0] and words_of(two) == words_of(one)[:2]
        assert three == [*one[:-1], "bird"]


@pytest.mark.parametrize("encoders, pads", [(1, [49407]), (2, [49407, 0])])
def test_tokens_are_those_of_clip_with_words_behind_them(encoders, pads):
    tokens = clip_tokens(8, encoders)
    ids = tokens.ids(["a photo of a", 2, 0, "bird"])
    assert ids.shape == (encoders, 77)
    # As the published demo has them: CLIP's own tokens, and those of parts from 49408 on.
    row = [49406, 320, 1125, 539, 320, 49410, 49408, 3329, 49407]
    for own, pad in zip(ids.tolist(), pads, strict=True):
        assert own == row + [pad] * (77 - len(row))


def test_a_long_text_is_cut_off_and_ends():
    ids = clip_tokens(8, 1).ids(["a " * 80, 3])
    assert ids.shape == (1, 77) and ids[0, -1] == 49407 and 49411 not in ids
    assert clip_tokens(8, 1).ids([1] * 75)[0].tolist() == [49406, *[49409] * 75, 49407]
    assert torch.equal(clip_tokens(8, 1).ids([""])[0, :2], torch.tensor([49406, 49407]))
