"""Weights and orders of parts, choices and blends of concepts."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pit.concepts.concepts import MOST_BYTES, blend, joined, picked, slerp
from pit.concepts.directions import apply_amounts
from pit.concepts.tokens import Tokens
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.sample import concept_noise, sample_prior
from pit.piece_it_together.slots import Parts
from tests.golden import assert_equal
from tests.piece_it_together.random_prior import SIZES, random_prior

WIDTH = SIZES["embedding_dim"]
EMPTY = concept_noise(9, 1, WIDTH)
PARTS = Parts(concept_noise(1, 3, WIDTH), EMPTY, EMPTY, source="random")


@pytest.fixture(scope="module")
def prior() -> IPPrior:
    return random_prior()


def sample(prior, parts: Parts, seed=0, count=1, order_seeds=None, scale=2.0) -> Tensor:
    return sample_prior(
        prior, parts.sequence(count, order_seeds), empty_tokens=parts.empty, steps=6, guidance_scale=scale,
        noise=concept_noise(seed, count, parts.width),
        negative_parts=parts.negative_sequence(count, order_seeds),
    )


def numbered(*fill: float, reference: bool = False, negative: dict[int, float] | None = None) -> Parts:
    """Parts of which each slot holds one number, and the empty tokens are zero."""
    slots = torch.tensor(fill)[:, None, None].expand(-1, 16, 4)
    empty, away = torch.zeros(1, 16, 4), torch.zeros(len(fill), 16, 4)
    for slot, number in (negative or {}).items():
        away[slot] = number
    return Parts(slots, empty, empty, away, reference, source="numbers")


def slot_numbers(sequence: Tensor) -> list[list[float]]:
    return sequence.unflatten(1, (-1, 16))[:, :, 0, 0].tolist()


# Weights ------------------------------------------------------------------------------------------------


def emptied(slot: int) -> Parts:
    slots = PARTS.slots.clone()
    slots[slot] = EMPTY[0]
    return replace(PARTS, slots=slots)


@pytest.mark.parametrize("slot", range(3))
def test_a_weight_of_zero_is_an_empty_slot_bit_for_bit(prior, slot):
    weighed = sample(prior, PARTS.weighed(slot, 0.0))
    assert torch.equal(weighed, sample(prior, emptied(slot)))
    assert not torch.equal(weighed, sample(prior, PARTS))


def test_a_weight_of_one_changes_no_bit(prior):
    parts = PARTS.slots.flatten(0, 1)[None]
    plain = sample_prior(prior, parts, empty_tokens=EMPTY, steps=6, noise=concept_noise(0, 1, WIDTH))
    assert torch.equal(sample(prior, PARTS), plain)
    assert torch.equal(sample(prior, PARTS.weighed(0, 1.0).weighed(2, 1.0)), plain)


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.5, 2.0])
def test_a_weight_lies_on_the_line_from_empty_through_the_part(weight):
    weighed = PARTS.weighed(1, weight)
    assert_equal(weighed.slots[1] - EMPTY[0], weight * (PARTS.slots[1] - EMPTY[0]))
    assert torch.equal(weighed.slots[[0, 2]], PARTS.slots[[0, 2]])
    assert torch.equal(weighed.negative_sequence(1), PARTS.negative_sequence(1))


def test_a_part_may_be_weighed_twice():
    assert_equal(PARTS.weighed(1, 0.5).weighed(1, 0.5).slots, PARTS.weighed(1, 0.25).slots)
    away = PARTS.weighed(1, -1.0)
    assert torch.equal(away.weighed(1, 1.5).negative, away.negative)
    assert torch.equal(away.weighed(1, 1.5).slots, away.slots)
    assert torch.equal(away.weighed(1, -1.0).negative_sequence(1), PARTS.negative_sequence(1))


def test_weighing_leaves_the_given_parts_alone():
    slots = PARTS.slots.clone()
    away = PARTS.weighed(0, -1.0)
    held = away.negative.clone()
    away.weighed(1, -1.0)
    assert torch.equal(PARTS.slots, slots) and PARTS.negative is None
    assert torch.equal(away.negative, held)


@pytest.mark.parametrize("weight", [-0.5, -1.0, -2.0])
def test_a_part_to_avoid_leaves_its_slot_and_is_what_guidance_leads_away_from(weight):
    parts = PARTS.weighed(1, weight)
    assert torch.equal(parts.slots, emptied(1).slots)
    assert_equal(parts.negative[1] - EMPTY[0], -weight * (PARTS.slots[1] - EMPTY[0]))
    assert torch.equal(parts.negative[[0, 2]], EMPTY.expand(2, -1, -1))


def mean_of_slots(x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
    """A prior whose concepts are the mean of their parts."""
    clean = parts.unflatten(1, (-1, x.shape[1])).mean(dim=1)
    return (x - clean) / t[:, None, None]


@pytest.mark.parametrize("weight", [-0.5, -1.0, -2.0])
def test_a_part_to_avoid_moves_the_result_away_from_it(prior, weight):
    """Guidance of 2 goes from the empty slot as far away from the part as it would go to it."""
    part = PARTS.slots[1] - EMPTY[0]
    away = sample(mean_of_slots, PARTS.weighed(1, weight)) - sample(mean_of_slots, emptied(1))
    assert_equal(away[0], weight * part / len(PARTS.slots))
    assert (sample(prior, PARTS.weighed(1, weight)) - sample(prior, emptied(1))).abs().max() > 1e-3


def test_without_guidance_nothing_leads_away(prior):
    assert torch.equal(sample(prior, PARTS.weighed(1, -1.0), scale=1.0), sample(prior, emptied(1), scale=1.0))


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 2.01, -2.01])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="weight between -2 and 2, got"):
        PARTS.weighed(0, weight)


@pytest.mark.parametrize("slot, shown", [(-1, 0), (3, 4)])
def test_a_slot_that_is_not_there_is_refused(slot, shown):
    with pytest.raises(ValueError, match=f"part from 1 to 3, got {shown}.*reference"):
        PARTS.weighed(slot, 1.0)


# Order --------------------------------------------------------------------------------------------------


def test_without_seeds_the_slots_stay_as_given():
    assert slot_numbers(numbered(3, 1, 2, 0).sequence(2)) == [[3, 1, 2, 0]] * 2
    assert slot_numbers(numbered(1, 0, negative={1: 5.0}).negative_sequence(2)) == [[0, 5]] * 2


def test_the_seed_of_a_concept_alone_decides_its_order(prior):
    seeds = [4, 5, 6, 2**64 + 7]
    together = PARTS.sequence(4, seeds)
    assert len({tuple(PARTS.slot_order(seed)) for seed in seeds}) > 1
    concepts = sample(prior, PARTS, 4, 3, seeds[:3])
    for number, seed in enumerate(seeds):
        assert torch.equal(together[number], PARTS.sequence(1, [seed])[0])
    for number in range(3):
        alone = sample(prior, PARTS, 4 + number, 1, [4 + number])
        torch.testing.assert_close(concepts[number], alone[0], rtol=1e-4, atol=1e-5)


def test_every_order_comes_up():
    orders = [tuple(numbered(1, 2, 3).slot_order(seed)) for seed in range(600)]
    assert len(set(orders)) == 6
    assert min(orders.count(order) for order in set(orders)) > 60


def test_a_reference_stays_first_and_white_padding_last():
    parts = numbered(9, 1, 0, 2, 3, 0, 0, reference=True)
    orders = {tuple(numbers) for numbers in slot_numbers(parts.sequence(200, range(200)))}
    assert len(orders) == 24
    assert {(numbers[0], *numbers[5:]) for numbers in orders} == {(9, 0, 0)}
    assert {tuple(sorted(numbers[1:5])) for numbers in orders} == {(0, 1, 2, 3)}


def test_a_white_reference_and_all_white_slots_stay():
    assert numbered(0, 0, 0, reference=True).slot_order(3) == [0, 1, 2]
    assert numbered(0, 0, 0).slot_order(3) == [0, 1, 2]


def test_what_is_led_away_from_moves_with_the_slots():
    parts = numbered(1, 2, 0, 0, negative={2: 7.0})
    orders = set()
    for given, away in zip(*(slot_numbers(each(50, range(50))) for each in (
            parts.sequence, parts.negative_sequence)), strict=True):
        assert given[3] == away[3] == 0
        assert [number for number, negative in zip(given, away, strict=True) if negative] == [0]
        orders.add(tuple(given))
    assert len(orders) == 6


def test_there_must_be_a_seed_for_each_concept():
    with pytest.raises(ValueError, match="one seed for each of 3 concepts, got 2"):
        PARTS.sequence(3, [1, 2])


# Choices ------------------------------------------------------------------------------------------------


def test_concepts_are_picked_in_the_order_of_their_numbers():
    tokens = Tokens(torch.arange(4.0)[:, None, None].expand(-1, 16, 2), torch.ones(1, 16, 2), source="a wall")
    chosen = picked(tokens, [4, 1, 1])
    assert chosen.values[:, 0, 0].tolist() == [3, 0, 0]
    assert chosen.uncond is tokens.uncond and chosen.source == "a wall"
    for number in (0, 5):
        with pytest.raises(ValueError, match=f"concepts from 1 to 4, got {number}"):
            picked(tokens, [1, number])


def test_picked_concepts_keep_their_features():
    features = torch.arange(4.0)[:, None, None].expand(-1, 9, 5)
    tokens = Tokens(torch.ones(4, 16, 2), torch.ones(1, 16, 2), features, source="a wall", adapter="a" * 16,
                    notes={"by": "me"})
    chosen = picked(tokens, [4, 1, 4])
    assert chosen.features[:, 0, 0].tolist() == [3, 0, 3] and chosen.features.shape == (3, 9, 5)
    assert (chosen.adapter, chosen.notes) == ("a" * 16, {"by": "me"})
    assert picked(replace(tokens, features=None), [2]).features is None


@pytest.mark.parametrize("ask", [
    lambda tokens: picked(tokens, (1 for _ in iter(int, 1))),  # endless
    lambda tokens: picked(replace(tokens, values=tokens.values[..., :1]), [1] * 10_000),  # with its features
    lambda tokens: joined([tokens] * 4000, "a node"),
    lambda tokens: blend(tokens.values.expand(32, -1, -1), tokens.values, [0.5] * 256, spherical=True),
    lambda tokens: apply_amounts(tokens.features.expand(8, -1, -1), tokens.features[0], [1.0] * 256),
])
def test_a_few_letters_that_ask_for_gigabytes_are_refused(ask):
    values = torch.zeros(1, 16, 2048)
    tokens = Tokens(values, values, torch.zeros(1, 257, 1280), source="a wall")
    with pytest.raises(ValueError, match="concepts of this size at once, got"):
        ask(tokens)


def test_what_is_there_already_has_room():
    values = torch.zeros(()).expand(MOST_BYTES // 4 // 64 + 9, 16, 4)
    tokens = Tokens(values, values[:1], source="a large file")
    assert len(picked(tokens, [1, 2, 3]).values) == 3
    assert len(joined([tokens], "a node").values) == len(values)


# Blends -------------------------------------------------------------------------------------------------


def sets(count: int, seed: int, width: int = 8) -> Tensor:
    return torch.randn(count, 16, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spherical", [False, True])
def test_the_ends_of_a_blend_are_the_concepts_bit_for_bit(spherical):
    first, second = sets(3, 1), 4 * sets(3, 2)
    ends = blend(first, second, [0.0, 1.0], spherical)
    assert torch.equal(ends, torch.cat([first, second]))


@pytest.mark.parametrize("spherical", [False, True])
def test_a_blend_holds_all_pairs_at_one_amount_after_another(spherical):
    first, second = sets(2, 1), sets(2, 2)
    together = blend(first, second, [0.3, 0.6], spherical)
    pairs = [(number, amount) for amount in (0.3, 0.6) for number in range(2)]
    for row, (number, amount) in zip(together, pairs, strict=True):
        alone = blend(first[number:number + 1], second[number:number + 1], [amount], spherical)
        torch.testing.assert_close(row, alone[0])


@pytest.mark.parametrize("spherical", [False, True])
def test_one_concept_is_paired_with_all_of_the_other(spherical):
    one, three = sets(1, 1), sets(3, 2)
    expanded = blend(one.expand(3, -1, -1), three, [0.4], spherical)
    assert torch.equal(blend(one, three, [0.4], spherical), expanded)
    torch.testing.assert_close(blend(three, one, [0.6], spherical), expanded)


def test_a_linear_blend_lies_on_the_line():
    first, second = sets(1, 1), sets(1, 2)
    assert_equal(blend(first, second, [0.25], False), 0.75 * first + 0.25 * second)


def test_a_spherical_blend_keeps_the_length_and_turns_evenly():
    first = sets(1, 1)
    second = sets(1, 2)
    second = second * first.norm() / second.norm()
    steps = blend(first, second, [0.0, 0.25, 0.5, 0.75, 1.0], True).flatten(1)
    assert_equal(steps.norm(dim=1), first.norm().expand(5))
    turns = torch.cosine_similarity(steps[:-1].double(), steps[1:].double()).acos()
    torch.testing.assert_close(turns, turns.mean().expand(4), rtol=1e-4, atol=0)
    assert blend(first, second, [0.5], False).norm() < 0.8 * first.norm()


def test_a_small_turn_keeps_the_length_too():
    first = sets(1, 1)
    second = first + 0.05 * sets(1, 2)
    second = second * first.norm() / second.norm()
    assert_equal(blend(first, second, [0.5], True).norm()[None], first.norm()[None])
    assert first.norm() - blend(first, second, [0.5], False).norm() > 1e-4 * first.norm()


def test_the_length_of_a_spherical_blend_changes_evenly():
    first, second = sets(1, 1), 3 * sets(1, 2)
    lengths = blend(first, second, [0.0, 0.5, 1.0], True).flatten(1).norm(dim=1)
    assert_equal(lengths[1:2], (lengths[0] + lengths[2])[None] / 2)


def test_a_quarter_turn_is_what_shoemake_says():
    first, second = torch.zeros(1, 16, 8), torch.zeros(1, 16, 8)
    first[0, 0, 0] = second[0, 3, 5] = 2.0
    third = slerp(first, second, 1 / 3)
    assert_equal(torch.stack([third[0, 0, 0], third[0, 3, 5]]), torch.tensor([3**0.5, 1.0]))


@pytest.mark.parametrize("factor", [1.0, 2.0, 1.0 + 1e-6, -1.0, 0.0])
def test_where_there_is_nothing_to_turn_a_spherical_blend_is_a_linear_one(factor):
    first = torch.cat([sets(1, 1), sets(1, 5)])
    second = torch.cat([factor * first[:1], sets(1, 6)])
    both = blend(first, second, [0.3], True)
    assert_equal(both[:1], torch.lerp(first, second, 0.3)[:1])
    assert_equal(both[1:], blend(first[1:], second[1:], [0.3], True))


def test_nearly_parallel_concepts_blend_smoothly():
    first = sets(1, 1)
    for spread in (3e-3, 1e-3, 1e-4, 1e-5):
        second = first + spread * sets(1, 2)
        assert_equal(blend(first, second, [0.5], True), (first + second) / 2)


def test_only_what_fits_together_can_be_blended():
    with pytest.raises(ValueError, match="width 8 in first and 6 in second"):
        blend(sets(1, 1), sets(1, 2, width=6), [0.5], True)
    with pytest.raises(ValueError, match="got 2 in first and 3 in second"):
        blend(sets(2, 1), sets(3, 2), [0.5], True)
