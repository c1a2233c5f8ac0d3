"""What is measured of pictures that come from captions alone."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pit.demo.drawing.captions import caption
from pit.demo.drawing.composition import compose
from pit.demo.drawing.creature import ATTRIBUTES, COLOR_NAMES, UNSEEN, creature_from_seed
from pit.demo.drawing.things import THINGS as THING_KINDS
from pit.demo.measure.pictures import fresh_pictures
from pit.demo.measure.scores import NAMES
from pit.demo.measure.suite import Laboratory
from pit.demo.measure.words import captioned_creatures, captioned_things, named_attributes
from pit.demo.training.data import ALONE, THINGS, WITH_THINGS
from pit.demo.training.truth import truth_of
from tests.demo.measure.readings import reading_of


def said(creature, seed, scene="night"):
    return caption(compose(creature, scene=scene), random.Random(seed), 9, plain_share=0)


def another(creature, name):
    """The creature with another value of an attribute, by which no part comes or goes."""
    value = creature.attributes[name]
    other = next(option for option in ATTRIBUTES[name] if option not in (value, "none", "plain"))
    return replace(creature, attributes=creature.attributes | {name: other})


@pytest.mark.parametrize("seed", range(40))
def test_an_attribute_is_named_if_another_one_changes_the_caption(seed):
    creature = creature_from_seed(seed, 0.0)
    text = said(creature, seed)
    named = named_attributes(text, creature) != UNSEEN
    for index, name in enumerate(NAMES):
        if creature.attributes[name] not in ("none", "plain"):
            assert (said(another(creature, name), seed) != text) == named[index], (name, text)


def test_named_attributes_have_their_values_and_what_is_absent_is_not_named():
    ember = creature_from_seed(0, 1.0, "ember")  # it has no ears
    text = "a red pear creature with scales and yellow ram horns and slit eyes next to a red ball"
    found = dict(zip(NAMES, named_attributes(text, ember).tolist(), strict=True))
    named = {name: ATTRIBUTES[name][value] for name, value in found.items() if value != UNSEEN}
    assert named == {
        "body": "pear", "body_color": "red", "pattern": "scales", "horns": "ram", "horns_color": "yellow",
        "eyes": "slit",
    }


def lab_of(reading):
    """A laboratory whose pictures are read like this, whatever the captions."""
    chain = SimpleNamespace(render_words=lambda captions, seed, on_batch: captions)
    return Laboratory(chain, SimpleNamespace(read=lambda captions: reading), 0)


def test_a_perfect_base_draws_all_that_captions_name():
    truth = truth_of(fresh_pictures(0, ALONE, 20, "words"))
    exact = reading_of(truth.labels.clamp(min=0), scenes=truth.scenes)
    measures, shares = captioned_creatures(lab_of(exact), 20)
    assert {name: estimate.value for name, estimate in measures.items()} == {
        "words_attributes": 1, "words_whole": 1,
    }
    assert all(estimate.value == 1 for estimate in shares.values())
    assert shares["body"].count == 20 > shares["ears"].count and shares["scene"].count < 20


def test_attributes_that_no_caption_names_do_not_count():
    truth = truth_of(fresh_pictures(0, ALONE, 20, "words"))
    wrong = reading_of(truth.labels.clamp(min=0) * 0 + 1, scenes=truth.scenes)
    measures, shares = captioned_creatures(lab_of(wrong), 20)
    assert measures["words_attributes"].value < 0.4 and set(shares) == {*ATTRIBUTES, "scene"}


def test_things_are_right_as_a_whole_by_kind_and_by_color():
    pictures = fresh_pictures(0, THINGS, 5, "words") + fresh_pictures(0, WITH_THINGS, 4, "words")
    true = truth_of(pictures).things
    attributes = torch.zeros(9, len(NAMES), dtype=torch.long)
    exact = captioned_things(lab_of(reading_of(attributes, things=true)), 9)
    assert {name: (estimate.value, estimate.count) for name, estimate in exact.items()} == {
        "things": (1, 9), "kind of thing": (1, 9), "color of thing": (1, 9),
    }
    turned = true.unflatten(1, (len(THING_KINDS), len(COLOR_NAMES))).roll(1, dims=2).flatten(1)
    recolored = captioned_things(lab_of(reading_of(attributes, things=turned)), 9)
    assert recolored["things"].value == 0 and recolored["kind of thing"].value == 1
    more = captioned_things(lab_of(reading_of(attributes, things=torch.ones_like(true))), 9)
    assert more["things"].value == 0
