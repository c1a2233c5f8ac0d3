"""Captions in the published form, without the faults of the published code."""

import re

import pytest

from pit.piece_it_together.ip_lora.prompts import CHARACTER_SHEET, CREATURE_IN, scene_caption, scene_prompt

IN_A = "in a"  # as published: it leaves the n of "in an" behind, and is found in "within a"
WHOLE_WORDS = r"\bin an?\b"


def caption(style: str, text: str, in_a: str) -> str | None:
    """The published rule: the scene goes from the first "in a" of a text to the next one."""
    pieces = re.split(in_a, text)
    return f"{style} {CREATURE_IN}{pieces[1]}" if len(pieces) > 1 else None


def test_the_character_sheet_is_the_published_text(golden):
    assert CHARACTER_SHEET == golden.facts("pit_lora_dataset")["character_sheet_prompt"]


def test_captions_are_the_published_ones_but_for_their_faults(golden):
    for case in golden.facts("pit_lora_dataset")["creature_in_scene_prompts"]:
        text = case["txt"]
        style, _, rest = text.partition(",")
        assert caption(style, text, IN_A) == case.get("prompt"), "the rule above is not the published one"
        mended = caption(style, rest, WHOLE_WORDS)
        if mended is None:
            with pytest.raises(ValueError, match="caption"):
                scene_caption(text)
        else:
            assert scene_caption(text) == mended.rstrip()


def test_in_an_leaves_no_n_behind():
    told = scene_caption("oil painting, blob in an old castle, night")
    assert told == "oil painting an imaginary fantasy creature in old castle, night"


def test_within_a_is_no_scene():
    told = scene_caption("photo of a cat within a box, sitting in a garden")
    assert told == "photo of a cat within a box an imaginary fantasy creature in garden"


def test_the_scene_ends_at_the_next_in_a():
    assert scene_caption("ink, it in a wood in a storm") == "ink an imaginary fantasy creature in wood"


@pytest.mark.parametrize("text", ["ink, thing in the sea", "a creature in a forest", "", "photo, in a"])
def test_a_caption_without_scene_is_refused(text):
    with pytest.raises(ValueError, match="Expected a (caption|scene)"):
        scene_caption(text)


def test_a_scene_is_said_as_it_was_trained():
    assert scene_prompt("a snowy forest ", "photo") == scene_caption("photo, x in a snowy forest")
    assert scene_prompt("An old castle") == "an imaginary fantasy creature in old castle"
    assert scene_prompt("antarctica") == "an imaginary fantasy creature in antarctica"
    with pytest.raises(ValueError, match="Expected a scene, got none"):
        scene_prompt("  ")
