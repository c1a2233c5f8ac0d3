"""Poses and views: the same attributes, moved; and which part is at each pixel."""

import random
from dataclasses import replace

import numpy as np
import pytest

from pit.demo.drawing.canvas import most_of_each
from pit.demo.drawing.creature import ATTRIBUTES, PARTS, STYLES, creature_from_seed, labels, sample_creature
from pit.demo.drawing.draw import PART_LABELS, draw_label_map, draw_part, draw_parts, draw_shape
from pit.demo.drawing.pose import BACK, FRONT, NEUTRAL, SIDE, VIEWS, Pose, pose_words, sample_pose

EMBER = creature_from_seed(3, 1.0, "ember")


def posed(creature=EMBER, **pose):
    return replace(creature, pose=Pose(**pose))


def middle(creature, part):
    """Where the middle of a part is, x and y in pixels."""
    ys, xs = np.nonzero(draw_label_map(creature, 128) == PART_LABELS[part])
    return xs.mean(), ys.mean()


def test_every_pose_stays_inside_of_the_picture():
    rng = random.Random(0)
    for _ in range(300):
        creature = replace(sample_creature(rng, 0.0), pose=sample_pose(rng))
        opaque = np.asarray(draw_parts(creature, PARTS, 128))[..., 3]
        edges = opaque[0], opaque[-1], opaque[:, 0], opaque[:, -1]
        assert max(edge.max() for edge in edges) <= 128, creature


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("slot", STYLES)
def test_every_style_looks_different_in_every_view_that_shows_it(view, slot):
    pictures, hidden = {}, 0
    for style in STYLES[slot]:
        creature = posed(replace(EMBER, attributes=EMBER.attributes | {slot: style}), view=view)
        hidden += labels(creature)[list(ATTRIBUTES).index(slot)] == -100
        pictures[draw_shape(creature, 128).tobytes()] = style
    # What is hidden looks the same whatever its style: a face, and from behind a belly is like a plain body.
    assert len(pictures) == len(STYLES[slot]) - max(0, hidden - 1)
    assert hidden == (0 if view != BACK else {"eyes": 6, "mouth": 6, "pattern": 2}.get(slot, 0))


def test_limbs_move_as_told():
    for part in ("arms", "wings"):
        low, still, high = (middle(posed(**{part: amount}), part)[1] for amount in (-1, 0, 1))
        assert high < still < low
    apart, together = (draw_label_map(posed(legs=amount), 128) == PART_LABELS["legs"] for amount in (1, -1))
    assert np.ptp(np.nonzero(apart)[1]) > np.ptp(np.nonzero(together)[1])
    left, straight, right = (middle(posed(lean=amount), "horns")[0] for amount in (-1, 0, 1))
    assert left < straight - 2 and right > straight + 2


def test_a_mirrored_pose_is_the_mirrored_picture():
    for view in VIEWS:
        plain, mirrored = (
            np.asarray(draw_parts(posed(view=view, arms=0.7, mirrored=side), PARTS, 256)).astype(int)
            for side in (False, True)
        )
        assert np.abs(plain[:, ::-1] - mirrored).mean() < 3
        assert np.abs(plain - mirrored).mean() > 6


def test_a_pose_changes_no_part_that_is_drawn_alone():
    for part in EMBER.parts:
        assert draw_part(posed(view=BACK, arms=1, lean=1), part) == draw_part(EMBER, part)


@pytest.mark.parametrize("view", VIEWS)
def test_the_labels_cover_what_is_drawn_and_name_what_is_seen(view):
    rng = random.Random(1)
    for _ in range(20):
        creature = replace(sample_creature(rng, 0.0), pose=sample_pose(rng, view))
        found, opaque = draw_label_map(creature, 128), np.asarray(draw_parts(creature, PARTS, 128))[..., 3]
        assert ((found > 0) == (opaque > 127)).mean() > 0.995
        seen = set(creature.parts) - ({"eyes", "mouth"} if view == BACK else set())
        # A part may be hidden by another one, but none is there that the creature does not have.
        assert set(np.unique(found)) - {0} <= {PART_LABELS[part] for part in seen}
        assert PART_LABELS["body"] in found


def test_a_part_with_nothing_in_front_is_labeled_as_it_is_drawn():
    for view in (FRONT, SIDE):
        creature = posed(view=view, arms=0.3)
        alone = np.asarray(draw_parts(creature, ["mouth"], 128))[..., 3] > 127
        assert (alone == (draw_label_map(creature, 128) == PART_LABELS["mouth"])).mean() > 0.998


def test_of_a_block_the_value_that_fills_most_counts_and_of_equal_ones_the_largest():
    values = np.array([[3, 3, 7, 5], [3, 1, 5, 7]], np.uint8)
    assert most_of_each(np.vstack([values, values[::-1]]), 2).tolist() == [[3, 7], [3, 7]]


def test_words_name_only_what_is_clear_and_there():
    assert pose_words(NEUTRAL, PARTS) == []
    assert pose_words(Pose(arms=0.2, lean=0.3), PARTS) == []
    assert pose_words(Pose(arms=1, wings=-1, lean=-1), PARTS) == [
        "with its arms raised", "with its wings folded", "leaning left",
    ]
    assert pose_words(Pose(arms=1), ["body"]) == []
    assert pose_words(Pose(view=BACK), PARTS) == ["seen from behind"]
    assert pose_words(Pose(view=SIDE, mirrored=True), PARTS) == ["seen from the side facing left"]


@pytest.mark.parametrize("pose", [{"arms": 1.01}, {"wings": -2}, {"lean": float("nan")}, {"view": "above"}])
def test_an_impossible_pose_is_refused(pose):
    with pytest.raises(ValueError, match="Expected"):
        Pose(**pose)
