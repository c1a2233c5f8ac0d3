"""Guidance beyond the published one: intervals, rescaling, negative parts; and the prepared prior."""
from __future__ import annotations

import copy

import pytest
import torch

from pit.flow.guidance import Guidance
from pit.flow.solvers import SOLVERS
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.sample import concept_noise, guided_velocity, sample_prior

WIDTH, SLOTS = 32, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PARTS, EMPTY, NOISE = random(2, 16 * SLOTS, WIDTH), random(1, 16, WIDTH, seed=1), concept_noise(5, 2, WIDTH)


@pytest.fixture(scope="module")
def prior() -> IPPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return IPPrior(WIDTH, 64, 3, 4).eval().requires_grad_(False)


class Counting:
    """An IP-Prior called as any function, which remembers how many samples it was asked for, and when."""

    def __init__(self, prior: IPPrior):
        self.prior, self.calls = prior, []

    def __call__(self, x, t, parts):
        self.calls.append((len(x), round(t[0].item(), 3)))
        return self.prior(x, t, parts)


def sample(prior, **settings):
    return sample_prior(prior, PARTS, empty_tokens=EMPTY, noise=NOISE, **({"steps": 5} | settings))


@pytest.mark.parametrize("settings", [
    {}, {"guidance_scale": 1.0}, {"guidance_interval": (0.3, 0.7)}, {"guidance_rescale": 0.5},
    {"init_tokens": random(2, 16, WIDTH, seed=2), "strength": 0.5, "schedule": "cosine"},
    *({"solver": solver} for solver in SOLVERS),
])
def test_the_prepared_prior_gives_the_same_numbers(prior, settings):
    def plain(x, t, parts):
        return prior(x, t, parts)

    torch.testing.assert_close(sample(prior, **settings), sample(plain, **settings), rtol=1e-4, atol=1e-5)


def test_outside_of_the_interval_there_is_one_call_without_guidance(prior):
    counting = Counting(prior)
    sample(counting, guidance_interval=(0.35, 0.85))
    assert counting.calls == [(2, 1.0), (4, 0.8), (4, 0.6), (4, 0.4), (2, 0.2)]


def test_the_whole_interval_is_the_published_guidance(prior):
    assert torch.equal(sample(prior, guidance_interval=(0.0, 1.0)), sample(prior))


def test_rescaling_brings_back_the_spread(prior):
    empty = EMPTY.repeat(2, SLOTS, 1)

    def spread(rescale, scale=6.0):
        velocity = guided_velocity(prior, PARTS, empty, Guidance(scale, rescale=rescale), [0.5])
        return velocity(NOISE, 0.5).std(dim=(1, 2))

    torch.testing.assert_close(spread(1.0), spread(0.0, scale=1.0))
    torch.testing.assert_close(spread(0.5), (spread(0.0) + spread(1.0)) / 2)


def test_empty_negative_parts_are_the_published_guidance_and_others_are_led_away_from(prior):
    plain = sample(prior)
    assert torch.equal(sample(prior, negative_parts=EMPTY.repeat(2, SLOTS, 1)), plain)
    assert (sample(prior, negative_parts=random(2, 16 * SLOTS, WIDTH, seed=4)) - plain).abs().max() > 0.01
    torch.testing.assert_close(
        sample(prior, negative_parts=PARTS, guidance_scale=9.0), sample(prior, guidance_scale=1.0)
    )


def test_half_precision_parts_are_worked_on_in_their_type_and_end_in_that_of_the_noise(prior):
    narrow = copy.deepcopy(prior).bfloat16()
    found = sample_prior(narrow, PARTS.bfloat16(), empty_tokens=EMPTY, noise=NOISE, steps=5)
    assert found.dtype == torch.float32
    assert (found - sample(prior)).norm() < 0.03 * sample(prior).norm()


@pytest.mark.parametrize("changes, message", [
    ({"guidance_interval": (0.5, 0.5)}, "within 0 to 1 that is not empty, got 0.5 to 0.5"),
    ({"guidance_interval": (0.8, 0.2)}, "within 0 to 1 that is not empty, got 0.8 to 0.2"),
    ({"guidance_interval": (-0.1, 0.2)}, "within 0 to 1 that is not empty, got -0.1 to 0.2"),
    ({"guidance_rescale": 1.5}, "rescale between 0 and 1, got 1.5"),
    ({"guidance_rescale": float("nan")}, "rescale between 0 and 1, got nan"),
    ({"schedule": "linear"}, "schedules uniform, shifted, cosine, got 'linear'"),
    ({"negative_parts": PARTS[:, :16]}, r"parts, \[2, 48, 32\], got \[2, 16, 32\]"),
])
def test_settings_that_cannot_be_are_refused(prior, changes, message):
    with pytest.raises(ValueError, match=message):
        sample(prior, **changes)


@pytest.mark.parametrize("bad_from, step", [(0.9, 2), (0.3, 5)])
def test_values_that_are_not_finite_are_told_with_their_step(prior, bad_from, step):
    def breaking(x, t, parts):
        return prior(x, t, parts) / (t[0] > bad_from)

    with pytest.raises(FloatingPointError, match=f"not finite at step {step} of 5"):
        sample(breaking)
