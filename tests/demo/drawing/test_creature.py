"""Drawn creatures: deterministic, complete, and described in words that the tokenizer table knows."""

import random
from collections import Counter

import numpy as np
import pytest

from pit.demo.drawing.creature import (
    ATTRIBUTES,
    JITTERS,
    PARTS,
    SCENES,
    SPECIES,
    STYLES,
    Creature,
    creature_from_seed,
    labels,
    sample_creature,
    typical_attributes,
    with_parts,
)
from pit.demo.drawing.draw import draw_creature, draw_part, draw_shape
from pit.demo.models.words import token_ids
from pit.images import contact_sheet


def test_the_same_seed_draws_the_same_picture():
    first, second = (np.asarray(draw_creature(creature_from_seed(5, 0.0))) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.asarray(draw_creature(creature_from_seed(6, 0.0))))


def test_coherence_one_is_the_pure_species():
    for species in SPECIES:
        assert creature_from_seed(1, 1.0, species).attributes == typical_attributes(species)


def test_coherence_zero_draws_every_value_of_every_attribute():
    rng = random.Random(0)
    creatures = [sample_creature(rng, 0.0) for _ in range(600)]
    for name, options in ATTRIBUTES.items():
        assert {creature.attributes[name] for creature in creatures} == set(options)


@pytest.mark.parametrize("species", SPECIES)
def test_every_part_is_drawn_inside_its_square(species):
    creature = creature_from_seed(2, 1.0, species)
    for part in creature.parts:
        pixels = np.asarray(draw_part(creature, part, 64, share=0.8))
        assert pixels.shape == (64, 64, 3)
        assert (pixels[0] == 255).all() and (pixels[:, -1] == 255).all()
        assert (pixels != 255).any()


def test_every_style_of_every_part_changes_the_picture():
    base = creature_from_seed(3, 1.0, "ember")
    for part in PARTS:
        pictures = set()
        for style in ATTRIBUTES[part]:
            base.attributes[part] = style
            pictures.add(draw_creature(base).tobytes())
        assert len(pictures) == len(ATTRIBUTES[part])


def test_every_style_of_every_part_is_drawn_alone_and_unlike_the_others():
    for part in PARTS:
        base, pictures = creature_from_seed(3, 1.0, "ember"), set()
        styles = [style for style in STYLES[part] if style != "none"]
        for style in styles:
            base.attributes[part] = style
            pictures.add(draw_part(base, part).tobytes())
        assert len(pictures) == len(styles)


@pytest.mark.parametrize("jitter", [-1.0, 1.0])
@pytest.mark.parametrize("body", STYLES["body"])
def test_no_style_is_cut_off_at_the_edge_of_the_picture(body, jitter):
    """A line that is cut off is opaque there; one that ends at the edge covers at most half a pixel."""
    jitters = dict.fromkeys(JITTERS, jitter)
    for slot in STYLES.keys() - {"body"}:
        for style in STYLES[slot]:
            attributes = typical_attributes("ember") | {"body": body, slot: style}
            opaque = np.asarray(draw_shape(Creature("ember", attributes, jitters), 128))[..., 3]
            edges = np.concatenate([opaque[0], opaque[-1], opaque[:, 0], opaque[:, -1]])
            assert edges.max() <= 128, f"{style} {slot}"


def test_scenes_differ():
    pictures = {draw_creature(creature_from_seed(3, 0.0, scene=scene)).tobytes() for scene in SCENES}
    assert len(pictures) == len(SCENES)


def test_a_creature_gets_the_parts_that_it_lacks_and_keeps_all_else():
    chosen = ("horns", "wings", "tail")
    for species, coherence in ((None, 0.0), *((species, 1.0) for species in SPECIES)):
        for seed in range(40):
            before = creature_from_seed(seed, coherence, species)
            after = with_parts(before, chosen, seed)
            assert set(chosen) <= set(after.parts)
            lacking = {part for part in chosen if before.attributes[part] == "none"}
            changed = {name for name in ATTRIBUTES if after.attributes[name] != before.attributes[name]}
            assert changed == lacking and after.jitter == before.jitter


def test_added_parts_have_all_styles_evenly_and_do_not_depend_on_one_another():
    tide = creature_from_seed(0, 1.0, "tide")
    found = Counter(with_parts(tide, ["wings"], seed).attributes["wings"] for seed in range(1000))
    assert set(found) == set(STYLES["wings"]) - {"none"} and min(found.values()) > 150
    alone, both = with_parts(tide, ["wings"], 5), with_parts(tide, ["horns", "wings"], 5)
    assert alone.attributes["wings"] == both.attributes["wings"]


def test_labels_hide_what_a_part_does_not_show():
    creature = creature_from_seed(4, 1.0, "ember")
    of_wings = dict(zip(ATTRIBUTES, labels(creature, "wings"), strict=True))
    assert [name for name, value in of_wings.items() if value != -100] == ["wings", "wings_color"]
    of_all = dict(zip(ATTRIBUTES, labels(creature), strict=True))
    assert [name for name, value in of_all.items() if value == -100] == ["ears_color"]  # it has no ears


@pytest.mark.parametrize(("call", "message"), [
    (lambda: creature_from_seed(-1), "a seed between 0 and .* got -1"),
    (lambda: creature_from_seed(2**64), "a seed between 0 and .* got 18446744073709551616"),
    (lambda: creature_from_seed(0, species="unicornfish"), "one of the species ember, .* got 'unicornfish'"),
    (lambda: creature_from_seed(0, scene="moon"), "one of the scenes white, .* got 'moon'"),
    (lambda: creature_from_seed(0, 1.5), "coherence between 0 and 1, got 1.5"),
    (lambda: draw_part(creature_from_seed(0), "trunk"), "one of the parts body, .* got 'trunk'"),
    (lambda: draw_part(creature_from_seed(1, 1.0, "tide"), "wings"), "this creature has, .* got 'wings'"),
    (lambda: token_ids("a " * 80, 77, 0), "at most 77 tokens, got 82"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_contact_sheet_leaves_gaps_white():
    picture = draw_creature(creature_from_seed(0), 32)
    sheet = np.asarray(contact_sheet([picture, None, picture], 2, 32))
    assert sheet.shape == (64, 64, 3)
    assert (sheet[:32, 32:] == 255).all() and np.array_equal(sheet[32:, :32], np.asarray(picture))
