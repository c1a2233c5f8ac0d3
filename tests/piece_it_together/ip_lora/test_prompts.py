"""TODO"""

import pytest

from pit.piece_it_together.ip_lora.prompts import CHARACTER_SHEET, scene_caption, scene_prompt
from tests.golden import facts

PUBLISHED = facts("pit_lora_dataset")
CASES = {case["txt"]: case.get("prompt") for case in PUBLISHED["creature_in_scene_prompts"]}
FOREST, CASTLE, BOX, SEA = CASES


def test_the_character_sheet_is_the_published_text():
    assert CHARACTER_SHEET == PUBLISHED["character_sheet_prompt"]


def test_a_caption_takes_the_published_form():
    assert scene_caption(FOREST) == CASES[FOREST]


def test_in_an_leaves_no_n_behind():
    assert scene_caption(CASTLE) == CASES[CASTLE].replace("inn ", "in ")


def test_within_a_is_no_scene():
    assert scene_caption(BOX) == "photo of a cat within a box an imaginary fantasy creature in garden"


def test_the_scene_ends_at_the_next_in_a():
    assert scene_caption("ink, it in a wood in a storm") == "ink an imaginary fantasy creature in wood"


@pytest.mark.parametrize("text", [SEA, "a creature in a forest", "", "photo, in a"])
def test_a_caption_without_scene_is_refused(text):
    with pytest.raises(ValueError, match="Expected a (caption|scene)"):
        scene_caption(text)


def test_a_scene_is_said_as_it_was_trained():
    assert scene_prompt("a snowy forest ", "photo") == scene_caption("photo, x in a snowy forest")
    assert scene_prompt("An old castle") == "an imaginary fantasy creature in old castle"
    assert scene_prompt("antarctica") == "an imaginary fantasy creature in antarctica"
    with pytest.raises(ValueError, match="Expected a scene, got none"):
        scene_prompt("  ")
