"""Creature Parts: what it tells of the whole creature, in every pose."""
from __future__ import annotations

import pytest
import torch

CHOSEN = ("body", "horns", "wings", "tail", "eyes")
PARTS = ("body", "eyes", "mouth", "horns", "ears", "wings", "arms", "legs", "tail")


@pytest.fixture
def drawn(inside):
    def draw(seed=3, species="mixed", **pose):
        node = inside.pack("nodes.creatures.parts").CreatureParts
        wanted = {part: part in CHOSEN for part in PARTS}
        return node.execute(seed, species, **wanted, **pose).args

    return draw


def test_there_is_a_mask_for_each_chosen_part_in_their_order(drawn):
    parts, _, whole, label_map, masks = drawn()
    assert len(parts) == len(masks) == len(CHOSEN)
    assert whole.shape == label_map.shape == (1, *masks.shape[1:], 3)
    assert 0 <= masks.min() and masks.max() == 1
    assert masks.sum(dim=0).max() <= 1
    order = [part for part in PARTS if part in CHOSEN]
    height = dict(zip(order, (mask.nonzero()[:, 0].float().mean() for mask in masks), strict=True))
    assert height["horns"] < height["eyes"] < height["body"] < height["tail"] + 64
    # Each mask has one color of the label map to itself.
    colors = [label_map[0][mask > 0.99].unique(dim=0) for mask in masks]
    assert all(len(color) == 1 for color in colors)
    assert len(torch.cat(colors).unique(dim=0)) == len(CHOSEN)


def test_a_pose_changes_the_whole_and_not_the_parts(drawn):
    plain = drawn()
    for pose in ({"raise_wings": 1.0}, {"lean": -1.0}, {"mirrored": True}, {"view": "side"}):
        posed = drawn(**pose)
        assert posed[0].equal(plain[0])
        assert all(not posed[place].equal(plain[place]) for place in (2, 3, 4))


def test_what_a_view_hides_has_an_empty_mask(drawn):
    seen = drawn(view="back")[4].flatten(1).any(dim=1)
    assert dict(zip([part for part in PARTS if part in CHOSEN], seen.tolist(), strict=True)) == {
        "body": True, "eyes": False, "horns": True, "wings": True, "tail": True,
    }
