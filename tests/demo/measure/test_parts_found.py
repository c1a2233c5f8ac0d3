"""How parts that were found are compared with the true ones."""

import pytest
import torch

from pit.demo.drawing.creature import ATTRIBUTES, PARTS, typical_attributes
from pit.demo.measure import parts_found as measures
from pit.demo.measure.parts_found import MEAN
from pit.demo.models.dino import build_dino
from pit.demo.part_places import GROUPS, START, Overlaps, draw_collection, features_of, from_features
from pit.demo.species import species_creatures
from pit.partcraft.discovery import discover

COUNT = 24


@pytest.fixture(scope="module")
def collection():
    return draw_collection(measures.free_creatures(0, COUNT))


def test_the_truth_is_what_dino_sees_the_middle_of(collection):
    assert collection.truth.shape == (COUNT, 16, 16) and collection.truth.dtype is torch.long
    assert collection.truth.unique().tolist() == list(range(GROUPS))
    shown = torch.bincount(collection.truth.flatten(), minlength=GROUPS) / collection.truth.numel()
    assert 0.2 < shown[0] < 0.7 and shown[1 + PARTS.index("body")] > shown[1 + PARTS.index("mouth")]


def test_parts_are_matched_whatever_their_groups_are_called(collection):
    order = torch.randperm(GROUPS, generator=torch.Generator().manual_seed(0))
    right = Overlaps.of(order[collection.truth], collection.truth)
    assert right.groups.tolist() == order[1:].tolist()
    assert {found.value for found in measures.shares_of(right).values()} == {1.0}
    mixed = torch.where(collection.truth == 4, 6, collection.truth)
    shares = measures.shares_of(Overlaps.of(mixed, collection.truth))
    assert shares[PARTS[3]].value == 0 and 0 < shares[PARTS[5]].value < 1 and shares[PARTS[0]].value == 1
    assert shares[MEAN].value == pytest.approx((7 + shares[PARTS[5]].value) / 9)


def test_place_alone_finds_some_parts_and_no_others(collection):
    found = measures.shares_of(Overlaps.of(measures.labels_by_place(collection.truth), collection.truth))
    assert 0.25 < found[MEAN].value < 0.5 and found["legs"].value > found["ears"].value


def test_codes_are_pure_where_each_is_one_look():
    creatures = species_creatures(4, 0)
    looks = torch.tensor([measures.look(creature, "horns") for creature in creatures])
    shown = looks >= 0
    codes = torch.where(shown, looks, 0)
    assert measures.is_usual(codes, looks, shown)[shown].all()
    one = measures.is_usual(torch.zeros_like(codes), looks, shown)
    assert 0 < one[shown].float().mean() < 0.6


def test_a_look_is_style_and_color():
    creature = species_creatures(1, 0)[0]
    other = typical_attributes("tide")
    assert measures.look(creature, "tail") == (
        ATTRIBUTES["tail"].index(creature.attributes["tail"]) * 8
        + ATTRIBUTES["tail_color"].index(creature.attributes["tail_color"])
    )
    tide = next(each for each in species_creatures(1, 0) if each.species == "tide")
    assert other["wings"] == "none" and measures.look(tide, "wings") == -1


def test_the_table_tells_what_is_reached(collection):
    torch.manual_seed(0)
    dino = build_dino().eval()
    others = features_of(dino, draw_collection(measures.free_creatures(1, COUNT)).pictures)
    clusters = discover(from_features(others), COUNT, GROUPS, 2, seed=0, start=START).clusters
    found = measures.measure_parts(dino, collection, clusters, codes=4)
    lines = measures.parts_table(found).splitlines()
    assert len(lines) == 2 + len(PARTS) + 2 and "55%, MISSED" in lines[-1]
    for column in vars(found).values():
        assert all(0 <= each.low <= each.value <= each.high <= 1 for each in column.values())
    assert found.by_place[MEAN].value > found.parts[MEAN].value
