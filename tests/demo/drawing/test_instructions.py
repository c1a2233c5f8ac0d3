"""What can be said of a creature in a word or two: it means one thing, and is in the captions' words."""

import random
from dataclasses import replace

import pytest

from pit.demo.drawing.creature import ATTRIBUTES, labels, sample_creature
from pit.demo.drawing.instructions import (
    INSTRUCTIONS,
    MEANING,
    PHRASES,
    Instruction,
    fitting_attributes,
    instruction_for,
    sample_instruction,
)
from pit.demo.drawing.pose import BACK, Pose
from pit.demo.models.words import WORDS


def test_every_value_can_be_said_in_words_that_captions_have():
    assert len(INSTRUCTIONS) == sum(map(len, ATTRIBUTES.values()))
    assert all(word in WORDS for phrase in PHRASES for word in phrase.split())


def test_no_phrase_has_two_meanings():
    assert len(PHRASES) == len(set(PHRASES)) == sum(len(each.phrases) for each in INSTRUCTIONS)
    assert all(phrase in each.phrases for phrase, each in MEANING.items())


@pytest.mark.parametrize("phrase, attribute, value", [
    ("red", "body_color", "red"), ("red wings", "wings_color", "red"), ("no horns", "horns", "none"),
    ("spotted", "pattern", "spots"), ("plain", "pattern", "plain"), ("tall", "body", "tall"),
    ("round eyes", "eyes", "round"), ("round body", "body", "round"),
])
def test_phrases_mean_what_they_say(phrase, attribute, value):
    assert MEANING[phrase] == Instruction(attribute, value)


def test_what_is_followed_changes_one_attribute_that_shows():
    for seed in range(40):
        creature, rng = sample_creature(random.Random(seed), 0.0), random.Random(seed)
        said = sample_instruction(creature, rng)
        changed = said.followed(creature)
        differing = {name for name in ATTRIBUTES if changed.attributes[name] != creature.attributes[name]}
        assert differing <= {said.attribute}
        assert instruction_for(changed, said.attribute) == said
        assert not differing or labels(changed) != labels(creature)


def test_nothing_is_said_of_what_a_view_hides_or_of_the_color_of_what_is_not_there():
    creature = sample_creature(random.Random(0), 0.0)
    creature = replace(creature, attributes=creature.attributes | {"horns": "none", "pattern": "belly"})
    front = fitting_attributes(creature)
    assert "horns" in front and "horns_color" not in front and "eyes" in front
    behind = fitting_attributes(replace(creature, pose=Pose(view=BACK)))
    assert set(front) - set(behind) == {"eyes", "mouth", "pattern"}
