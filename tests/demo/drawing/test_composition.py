"""Pictures of creatures and things: nothing touches, all stands on the ground, and the words are true."""

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pit.demo.drawing.captions import GROUND_COLORS, caption, color_name, plain_caption, scene_phrase
from pit.demo.drawing.composition import THING_LABEL, Composition, compose, draw_composition, draw_map
from pit.demo.drawing.creature import PARTS, TAUGHT_SCENE_WORDS, creature_from_seed, sample_creature
from pit.demo.drawing.draw import PART_LABELS
from pit.demo.drawing.pose import BACK, Pose, sample_pose
from pit.demo.drawing.scenes import SCENE_NAMES, draw_scene
from pit.demo.drawing.things import Thing, sample_thing
from pit.demo.models.words import token_ids

EMBER = creature_from_seed(3, 1.0, "ember")


def random_composition(rng: random.Random):
    creature = replace(sample_creature(rng, 0.0), pose=sample_pose(rng)) if rng.random() < 0.8 else None
    things = [sample_thing(rng) for _ in range(rng.randint(0, 2))]
    ground = tuple(rng.randrange(256) for _ in range(3)) if rng.random() < 0.3 else None
    return compose(creature, things, scene=rng.choice(SCENE_NAMES), ground=ground, rng=rng)


def test_things_are_clear_of_each_other_and_of_the_creature():
    rng = random.Random(0)
    for _ in range(60):
        found = draw_map(random_composition(rng), 128)
        creature, others = (0 < found) & (found < THING_LABEL), found >= THING_LABEL
        near = ndimage.binary_dilation(creature | (found == THING_LABEL), iterations=2)
        assert not (near & (found == THING_LABEL + 1)).any()
        assert not (ndimage.binary_dilation(creature, iterations=2) & others).any()


def test_things_stand_on_the_ground_inside_of_the_picture():
    rng = random.Random(1)
    for count in (1, 2):
        for creature in (EMBER, None):
            things = [sample_thing(rng) for _ in range(count)]
            found = draw_map(compose(creature, things, rng=rng), 128)
            for label in range(THING_LABEL, THING_LABEL + count):
                rows, columns = np.nonzero(found == label)
                assert abs(rows.max() - 0.94 * 128) <= 2
                assert columns.min() > 0 and columns.max() < 127


def test_a_picture_is_the_same_each_time_and_at_each_size_of_the_same_content():
    one = random_composition(random.Random(5))
    assert draw_composition(one, 64).tobytes() == draw_composition(one, 64).tobytes()
    small, large = (draw_composition(one, size).resize((64, 64)) for size in (128, 256))
    assert np.abs(np.asarray(small).astype(int) - np.asarray(large)).mean() < 6


def test_the_map_is_where_the_picture_differs_from_the_empty_ground():
    composition = compose(EMBER, [Thing("key", "red", dict.fromkeys(("size", "tilt", "hue", "shade"), 0.0))],
                          ground=(3, 250, 3))
    picture = np.asarray(draw_composition(composition, 128)).astype(int)
    differs = np.abs(picture - [3, 250, 3]).max(axis=2) > 140
    assert (differs & (draw_map(composition, 128) == 0)).sum() < 40
    assert np.unique(draw_map(composition, 128)).tolist() == [
        0, *(PART_LABELS[part] for part in PARTS if part in EMBER.parts), THING_LABEL,
    ]


def test_an_empty_composition_is_the_empty_scene():
    assert draw_composition(compose(None, scene="beach"), 96).tobytes() == draw_scene("beach", 96).tobytes()


def test_more_than_two_things_are_refused():
    with pytest.raises(ValueError, match="Expected at most two things in a picture, got 3"):
        compose(EMBER, [sample_thing(random.Random(0))] * 3)


def test_every_caption_is_made_of_known_words_and_names_scene_and_things():
    rng, seen = random.Random(2), set()
    for _ in range(3000):
        composition = random_composition(rng)
        for text in (caption(composition, rng), plain_caption(composition)):
            assert len(token_ids(text, 77, 0)) == 77
            assert all(f"{thing.color} {thing.kind}" in text for thing, _ in composition.things)
            seen.add(text)
    # "nothing" and a few things alone repeat themselves; creatures hardly do.
    assert len(seen) > 3500


def test_captions_say_only_what_is_seen():
    rng = random.Random(3)
    for _ in range(300):
        creature = replace(sample_creature(rng, 0.0), pose=Pose(view=BACK))
        text = caption(compose(creature), rng)
        assert "eyes" not in text and "mouth" not in text and "belly" not in text


def test_a_ground_has_the_name_of_a_color_that_is_close():
    for name, color in GROUND_COLORS.items():
        assert color_name(color) == name
    assert color_name((0, 255, 0)) is None
    assert plain_caption(compose(None, ground=GROUND_COLORS["orange"])) == "nothing on an orange background"


def test_a_mixed_scene_is_named_like_those_that_were_taught():
    said = {name: scene_phrase(Composition(name)) for name in TAUGHT_SCENE_WORDS}
    assert said == TAUGHT_SCENE_WORDS
    assert scene_phrase(Composition("candy_sea")) == " under the candy sea"
