"""What a step sees is a function of seed and step, and follows the published recipe."""
from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from pit.piece_it_together.training.batches import (
    EMPTY,
    PriorBatch,
    draw_batch,
    draw_sample,
    read_samples,
    slot_count,
)
from pit.piece_it_together.training.recipes import PUBLISHED, RECOMMENDED
from pit.training.held_out import split_by_name
from pit.training.order import read_ahead
from tests.training.tiny import write_cache


def concepts_of(cache):
    return torch.arange(len(cache))


def batch_of(cache, recipe, step, rows=range(8), total=8, seed=0):
    return draw_batch(cache, concepts_of(cache), recipe, seed, step, rows, total)


def fields(batch):
    return {name: value for name, value in vars(batch).items() if value is not None}


@pytest.mark.parametrize("recipe", [PUBLISHED, RECOMMENDED])
def test_the_same_seed_and_step_draw_the_same(cache, recipe):
    first, again = fields(batch_of(cache, recipe, 3)), fields(batch_of(cache, recipe, 3))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"], batch_of(cache, recipe, 4).noise)
    assert not torch.equal(first["noise"], batch_of(cache, recipe, 3, seed=1).noise)


def test_two_processes_draw_what_one_draws(cache):
    whole = batch_of(cache, PUBLISHED, 5)
    halves = [batch_of(cache, PUBLISHED, 5, rows) for rows in (range(4), range(4, 8))]
    for name, value in fields(whole).items():
        assert torch.equal(value, torch.cat([getattr(half, name) for half in halves])), name


def test_every_concept_comes_once_in_a_pass(cache):
    seen = torch.cat([batch_of(cache, PUBLISHED, step, range(6), 6).clean for step in range(10)])
    targets = cache.rows(cache.target_rows)
    matches = (seen[:, None] == targets).flatten(2).all(dim=2)
    assert matches.sum(dim=0).tolist() == [1] * len(cache)


def test_parts_are_those_of_the_concept_in_any_variant(cache):
    recipe = replace(RECOMMENDED, empty_share=0.0, shortened_share=0.0)
    variants = set()
    for seed in range(40):
        sample = draw_sample(cache, 7, recipe, 4, random.Random(seed))
        given = [slot for slot in sample.slots if slot != EMPTY]
        first, last = cache.part_offsets[7:9].tolist()
        own = [int(row) + variant for row in cache.part_rows[first:last] for variant in range(2)]
        assert set(given) <= set(own) and 1 <= len(given) <= 4
        assert sample.slots[:len(given)] == tuple(given), "white slots come last"
        variants |= set(given)
    assert len(variants) == 8


def test_one_sample_in_ten_is_empty_and_half_of_the_batches_are_short(cache):
    full, empty = 0, 0
    slots = slot_count(cache, PUBLISHED)
    for step in range(300):
        batch = batch_of(cache, PUBLISHED, step)
        full += batch.parts.shape[1] == 16 * slots
        white = (batch.parts.unflatten(1, (-1, 16)) == cache.empty.half()).flatten(2).all(dim=2).all(dim=1)
        empty += white.float().mean().item()
        assert batch.mask is None
    assert 0.07 < empty / 300 < 0.13
    assert 0.54 < full / 300 < 0.71, "half are not shortened, and a fourth of the shortened keep all four"


def test_each_sample_has_its_own_length(cache):
    batch = batch_of(cache, RECOMMENDED, 1, range(64), 64)
    lengths = batch.mask.sum(dim=1) // 16
    assert set(lengths.tolist()) == {1, 2, 3, 4}
    hidden = ~batch.mask
    assert torch.equal(batch.parts[hidden], cache.empty.half().expand(64, -1, -1).repeat(1, 4, 1)[hidden])


def test_few_parts_still_fill_three_slots(tmp_path):
    cache = write_cache(tmp_path / "cache", concepts=1)
    assert slot_count(cache, PUBLISHED) == 3


@pytest.mark.parametrize("kept", [True, False])
def test_the_reference_comes_first_and_may_go_with_the_parts(tmp_path, kept):
    cache = write_cache(tmp_path / "cache", concepts=6, references=2)
    recipe = replace(PUBLISHED, keep_reference=kept, empty_share=1.0, shortened_share=0.0)
    batch = batch_of(cache, recipe, 0, range(6), 6)
    first = batch.parts[:, :16]
    grids = cache.rows(cache.reference_rows.flatten())
    is_reference = [bool((row == grids).flatten(1).all(1).any()) for row in first]
    assert is_reference == [kept] * 6
    assert torch.equal(batch.parts[:, 16:], cache.empty.half().repeat(6, slot_count(cache, recipe) - 1, 1))


def test_times_are_logit_normal(cache):
    t = torch.cat([batch_of(cache, PUBLISHED, step, range(64), 64).t for step in range(20)])
    normal = torch.logit(t)
    assert abs(normal.mean()) < 0.1 and abs(normal.std() - 1) < 0.1


def test_mean_and_spread_move_the_times(cache):
    plain, noisy = (
        torch.logit(batch_of(cache, replace(PUBLISHED, **times), 0, range(64), 64).t)
        for times in ({}, {"time_mean": 0.5, "time_spread": 1.5})
    )
    torch.testing.assert_close(noisy, 1.5 * plain + 0.5, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_batches_are_read_ahead_in_order(accumulation):
    def draw(step, micro):
        places = (torch.tensor([step, micro]) for _ in range(2))
        return PriorBatch(*places, None, torch.ones(1), torch.ones(1))

    with read_ahead(draw, 5, accumulation, torch.device("cpu")) as batches:
        drawn = [tuple(next(batches).parts.tolist()) for _ in range(6)]
    assert drawn == [(5 + i // accumulation, i % accumulation) for i in range(6)]


def test_tokens_are_widened_on_their_device(cache):
    batch = batch_of(cache, RECOMMENDED, 0)
    moved = batch.to(torch.device("cpu"))
    assert batch.parts.dtype == torch.float16 and moved.parts.dtype == moved.clean.dtype == torch.float32
    assert torch.equal(moved.parts, batch.parts.float()) and moved.mask.dtype == torch.bool


def test_held_out_concepts_are_few_and_never_trained_on(cache, tmp_path):
    split = split_by_name(cache.names)
    assert len(split.held_out) == 1 and len(split.training) == 59
    assert not set(split.held_out.tolist()) & set(split.training.tolist())
    small = split_by_name(write_cache(tmp_path / "small", concepts=5).names)
    assert len(small.training) == 5 and len(small.held_out) == 0


def test_samples_of_different_lengths_are_filled_up(cache):
    samples = [draw_sample(cache, 3, RECOMMENDED, 4, random.Random(seed)) for seed in range(6)]
    batch = read_samples(cache, samples)
    for sample, parts in zip(samples, batch.parts, strict=True):
        for slot, row in enumerate(sample.slots):
            wanted = cache.empty[0].half() if row == EMPTY else cache.rows(torch.tensor([row]))[0]
            assert torch.equal(parts[16 * slot:16 * slot + 16], wanted)
