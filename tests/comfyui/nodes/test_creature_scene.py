"""Creature Scene: exact triplets of a scene, a thing and both, and what is left to chance."""
from __future__ import annotations

import pytest
import torch

from pit.demo.drawing.creature import COLORS

SETTINGS = {
    "seed": 5, "scene": "meadow", "first_thing": "ball", "first_color": "red", "second_thing": "none",
    "second_color": "any",
}
PARTS = ("body", "eyes", "mouth", "horns", "ears", "wings", "arms", "legs", "tail")


@pytest.fixture
def draw(inside):
    def execute(**changed):
        node = inside.pack("nodes.creatures.scenes").CreatureScene
        return node.execute(**SETTINGS | changed).args

    return execute


@pytest.fixture
def creature(inside):
    node = inside.pack("nodes.creatures.parts").CreatureParts
    return node.execute(3, "mixed", **dict.fromkeys(PARTS, True)).args[1]


def reach(mask):
    """A mask and what is near it: a thing's shadow lies about its foot."""
    return torch.nn.functional.max_pool2d(mask[None], 61, 1, 30)[0]


def test_a_thing_changes_the_picture_only_where_it_stands(draw, creature):
    picture, without, things, masks, label_map, words = draw(creature=creature)
    assert picture.shape == without.shape == label_map.shape == things.shape == (1, 256, 256, 3)
    assert masks.shape == (1, 256, 256)
    changed = (picture != without).any(dim=-1)
    assert changed[masks == 1].all()
    assert not changed[reach(masks) == 0].any()
    assert "red ball" in words and "meadow" in words


def test_the_thing_alone_is_the_one_in_the_picture(draw, creature):
    picture, _, things, masks, *_ = draw(creature=creature)
    def most(pixels):
        colors, counts = pixels.unique(dim=0, return_counts=True)
        return colors[counts.argmax()]

    seen, alone = most(picture[masks > 0.99]), most(things[(things < 0.98).any(dim=-1)])
    assert seen.equal(alone)
    assert (seen - torch.tensor(COLORS["red"]) / 255).abs().max() < 0.25
    assert things[0, 0].min() == 1


def test_two_things_stand_apart_and_each_has_a_mask(draw, creature):
    _, _, things, masks, label_map, words = draw(second_thing="key", second_color="blue", creature=creature)
    assert len(things) == len(masks) == 2
    assert masks.sum(dim=0).max() <= 1
    colors = [label_map[0][mask > 0.99].unique(dim=0) for mask in masks]
    assert [len(color) for color in colors] == [1, 1] and not colors[0].equal(colors[1])
    assert "red ball" in words and "blue key" in words


def test_one_thing_does_not_change_with_the_other(draw):
    alone = draw()[2]
    assert draw(second_thing="book")[2][:1].equal(alone)
    assert draw(first_thing="none", second_thing="book")[2].equal(draw(second_thing="book")[2][1:])


def test_without_things_nothing_behind_them_runs(draw, creature):
    picture, without, things, masks, *_ = draw(first_thing="none", creature=creature)
    assert picture.equal(without)
    assert all("Choose a first_thing" in blocked.message for blocked in (things, masks))


def test_what_is_left_to_chance_follows_from_the_seed(draw):
    chance = {"first_thing": "any", "scene": "any"}
    assert draw(**chance)[0].equal(draw(**chance)[0])
    assert len({draw(seed=seed, **chance)[5] for seed in range(6)}) > 3
    assert len({draw(seed=seed, scene="mixed")[1].sum().item() for seed in range(6)}) > 3
    plain = draw(scene="plain")[1].flatten(0, 2)
    assert plain.unique(dim=0).shape == (1, 3)


def test_a_scene_may_be_empty(draw):
    picture, *_, words = draw(first_thing="none")
    assert picture.shape == (1, 256, 256, 3) and "meadow" in words
