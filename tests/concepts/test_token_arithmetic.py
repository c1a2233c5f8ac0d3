"""Concepts counted together: joined, averaged, and one given what sets another apart from a third."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pit.concepts.concepts import (
    average,
    check_same_space,
    derived,
    difference_added,
    joined,
)
from pit.concepts.tokens import Tokens
from tests.golden import assert_equal


def sets(count: int, seed: int, width: int = 8) -> Tensor:
    return torch.randn(count, 16, width, generator=torch.Generator().manual_seed(seed))


def batch(count: int, seed: int, source: str = "a wall", **known) -> Tokens:
    return Tokens(sets(count, seed), sets(1, 99), source=source, **known)


def test_batches_are_joined_in_their_order():
    first, second, third = batch(2, 1, "first"), batch(1, 2, "second", adapter="b" * 16), batch(3, 3, "third")
    together = joined([first, second, third], "Join")
    assert torch.equal(together.values, torch.cat([first.values, second.values, third.values]))
    assert together.uncond is first.uncond
    assert (together.source, together.adapter, together.features) == ("Join", "b" * 16, None)
    assert together.notes == {"made by": "Join", "from 1": "first", "from 2": "second", "from 3": "third"}


def test_one_batch_alone_may_be_joined():
    assert torch.equal(joined([batch(2, 1)], "Join").values, sets(2, 1))


def test_batches_of_different_adapters_are_not_joined():
    with pytest.raises(ValueError, match="belong to different IP-Adapters"):
        joined([batch(1, 1, adapter="a" * 16), batch(1, 2, adapter="b" * 16)], "Join")


@pytest.mark.parametrize("counts", [
    (3, 3, 3), (3, 1, 1), (1, 3, 1), (1, 1, 3), (3, 3, 1), (1, 3, 3), (1, 1, 1),
])
def test_a_difference_is_added_one_by_one_and_single_ones_go_with_all(counts):
    base, plus, minus = (sets(count, seed) for seed, count in enumerate(counts))
    added = difference_added(base, plus, minus, 0.7)
    assert len(added) == max(counts)
    for row in range(len(added)):
        b, p, m = (each[row % len(each)].double() for each in (base, plus, minus))
        assert_equal(added[row], b + 0.7 * (p - m))


@pytest.mark.parametrize("counts", [(2, 3, 1), (3, 2, 2), (1, 2, 3), (2, 3, 4)])
def test_a_difference_of_other_counts_is_refused(counts):
    base, plus, minus = (sets(count, 1) for count in counts)
    with pytest.raises(ValueError, match="got {}, {} and {}. Pick as many".format(*counts)):
        difference_added(base, plus, minus, 1.0)


def test_the_average_is_the_mean_of_all_sets():
    mean = average(sets(5, 1), keep_length=False)
    assert_equal(mean, sets(5, 1).double().mean(dim=0, keepdim=True))


def test_an_average_may_keep_the_mean_length_in_the_same_direction():
    tokens = sets(5, 1) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[:, None, None]
    short, kept = average(tokens, keep_length=False), average(tokens, keep_length=True)
    lengths = tokens.flatten(1).norm(dim=1)
    assert_equal(kept.norm()[None], lengths.mean()[None])
    assert short.norm() < 0.8 * lengths.mean()
    assert torch.cosine_similarity(short.flatten(), kept.flatten(), dim=0) > 1 - 1e-6


@pytest.mark.parametrize("keep_length", [False, True])
def test_an_average_of_one_is_itself_and_of_opposites_is_nothing(keep_length):
    assert_equal(average(sets(1, 1), keep_length), sets(1, 1))
    opposites = torch.cat([sets(1, 1), -sets(1, 1)])
    assert torch.equal(average(opposites, keep_length), torch.zeros(1, 16, 8))


def test_what_is_derived_says_of_what_and_knows_no_features():
    sources = [batch(1, 1, "one", features=torch.ones(1, 9, 5)), batch(1, 2, "two", adapter="c" * 16)]
    made = derived(sources, sets(4, 3), "Mix")
    assert torch.equal(made.values, sets(4, 3)) and made.uncond is sources[0].uncond
    assert made.notes == {"made by": "Mix", "from 1": "one", "from 2": "two"}
    assert (made.source, made.adapter, made.features) == ("Mix", "c" * 16, None)
    assert derived([batch(1, 1)], sets(1, 1), "Mix").adapter == ""


@pytest.mark.parametrize("stamps", [("", ""), ("a" * 16, ""), ("", "a" * 16), ("a" * 16, "a" * 16)])
def test_tokens_of_one_or_of_unknown_adapters_go_together(stamps):
    check_same_space(*(batch(1, 1, adapter=stamp) for stamp in stamps))


def test_tokens_of_another_width_or_adapter_do_not_go_together():
    wide = Tokens(sets(1, 1, 6), sets(1, 1, 6), source="a wide one")
    with pytest.raises(ValueError, match=r"a wall .width 8. and those from a wide one .width 6., which"):
        check_same_space(batch(1, 1), batch(1, 2), wide)
    with pytest.raises(ValueError, match="from a wall .* and those from a door .* belong to different"):
        check_same_space(batch(1, 1, adapter="a" * 16), batch(1, 2, "a door", adapter="b" * 16))
