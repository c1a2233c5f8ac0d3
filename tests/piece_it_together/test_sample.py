"""Sampling and training against the published code, and what sampling promises beyond it."""

import math

import pytest
import torch
from torch import Tensor

from pit.flow.guidance import Guidance, seeded_noise
from pit.flow.path import interpolate, logit_normal_time, velocity_loss
from pit.flow.solvers import SOLVERS
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.sample import concept_noise, guided_velocity, sample_prior
from tests.golden import assert_equal, number_in
from tests.piece_it_together.random_prior import SIZES, random_prior

WIDTH = SIZES["embedding_dim"]
PARTS, EMPTY = seeded_noise(0, 2, 48, WIDTH), concept_noise(2, 1, WIDTH)
NOISE, INIT = concept_noise(3, 2, WIDTH), concept_noise(5, 2, WIDTH)


@pytest.fixture(scope="module")
def prior() -> IPPrior:
    return random_prior()


class CountingPrior:
    """A linear field in place of a network, which remembers the batch sizes and times it was asked for."""

    def __init__(self, last_value: float = 0.0):
        self.batches: list[int] = []
        self.times: list[float] = []
        self.last_value = last_value

    def __call__(self, x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
        assert x.shape[0] == t.shape[0] == parts.shape[0] and t.unique().numel() == 1
        self.batches.append(len(x))
        self.times.append(t[0].item())
        return x + parts.mean(dim=1, keepdim=True) + self.last_value


@torch.no_grad()
@pytest.mark.golden_keys("pit_tiny_io", r"sample\.out_.+")
def test_samples_equal_the_published_ones(golden, golden_prior, key):
    """With the guidance, steps, strength and seed in the name; a seed stands for the first concept alone."""
    given = golden.below("pit_tiny_io", "sample.")
    parts, noise, options = given["cond"], given["noise"], {}
    if "seed" in key:
        noise = concept_noise(int(number_in(key, "seed")), 1, parts.shape[-1])
        parts = parts[:1]
    if "strength" in key:
        options = {"init_tokens": given["init_latents"], "strength": number_in(key, "strength")}
    tokens = sample_prior(
        golden_prior, parts, empty_tokens=given["empty_tokens"], noise=noise,
        steps=int(number_in(key, "steps", 25)), guidance_scale=number_in(key, "g"), **options,
    )
    assert_equal(tokens, given[key.removeprefix("sample.")])


@pytest.mark.golden_keys("pit_tiny_io", r"sample\.cpu_noise_seed\d+")
def test_a_seed_gives_the_published_noise(golden, key):
    noise = golden.tensors("pit_tiny_io")[key]
    assert torch.equal(concept_noise(int(number_in(key, "seed")), len(noise), noise.shape[-1]), noise)


@torch.no_grad()
def test_loss_equals_the_published_one(golden, golden_prior):
    given = golden.below("pit_tiny_io", "train.")
    t = torch.sigmoid(given["nt"])
    assert_equal(t, given["t"])
    assert_equal(interpolate(given["x"], given["z"], t), given["noisy"])
    assert_equal(golden_prior(given["noisy"], t, given["cond"]), given["pred"])
    loss = velocity_loss(golden_prior, given["x"], given["cond"], t, given["z"])
    assert_equal(loss, given["loss_per_sample"])
    assert_equal(loss.mean()[None], given["loss"])


def backward(prior: IPPrior, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of the prior, with gradients of the golden training step."""
    velocity_loss(prior, given["x"], given["cond"], given["t"], given["z"]).mean().backward()
    return dict(prior.named_parameters())


@pytest.mark.golden_keys("pit_tiny_io", r"train\.grad\..+")
def test_gradients_equal_the_published_ones(golden, golden_prior, key):
    given = golden.below("pit_tiny_io", "train.")
    weight = backward(golden_prior, given)[key.removeprefix("train.grad.")]
    assert_equal(weight.grad, golden.tensors("pit_tiny_io")[key])


@pytest.mark.golden_keys("pit_tiny_io", r"train\.after_adamw\..+")
def test_a_training_step_equals_the_published_one(golden, golden_prior, key):
    given = golden.below("pit_tiny_io", "train.")
    weight = backward(golden_prior, given)[key.removeprefix("train.after_adamw.")]
    norm = torch.nn.utils.clip_grad_norm_(golden_prior.parameters(), 1.0)
    assert_equal(norm[None], given["grad_norm"].reshape(1))
    before = weight.detach().clone()
    torch.optim.AdamW(golden_prior.parameters(), lr=1e-5, weight_decay=0.0).step()
    expected = golden.tensors("pit_tiny_io")[key]
    assert_equal(weight.detach(), expected)
    # The step is 1e-5 long, as the tolerance is: only the difference tells whether it was taken at all. As a
    # whole, because where a gradient is next to nothing its sign, and so the step, depends on rounding.
    step = expected - before
    assert (weight.detach() - before - step).norm() < 0.02 * step.norm()


@pytest.mark.parametrize("name", ["heun", "midpoint", "ab2", "dpm++ 2m", "unipc"])
def test_second_order_solvers_need_fewer_steps(prior, name):
    def sample(solver: str, steps: int) -> Tensor:
        return sample_prior(
            prior, PARTS, empty_tokens=EMPTY, noise=NOISE, steps=steps, solver=solver, guidance_scale=1.0
        )

    exact = sample("midpoint", 60)
    assert (sample(name, 15) - exact).norm() < 0.5 * (sample("euler", 15) - exact).norm()


def test_solvers_start_alike():
    ends = [
        sample_prior(CountingPrior(), PARTS, empty_tokens=EMPTY, noise=NOISE, steps=1, solver=name)
        for name in ("euler", "ab2")
    ]
    assert torch.equal(*ends)


@pytest.mark.parametrize("scale", [1.5, 2.0, 7.0])
def test_batched_guidance_equals_two_passes(prior, scale):
    x, empty = NOISE, EMPTY.repeat(2, 3, 1)
    t = torch.full((2,), 0.64)
    given, nothing = prior(x, t, PARTS), prior(x, t, empty)
    both = guided_velocity(prior, PARTS, empty, Guidance(scale), [0.64])(x, 0.64)
    assert_equal(both, nothing + scale * (given - nothing))


@pytest.mark.parametrize("scale, batch", [(2.0, 4), (1.001, 4), (1.0, 2), (0.0, 2), (-3.0, 2)])
def test_guidance_is_one_call_a_step_and_off_up_to_one(scale, batch):
    field = CountingPrior()
    sample_prior(field, PARTS, empty_tokens=EMPTY, noise=NOISE, steps=5, guidance_scale=scale)
    assert field.batches == [batch] * 5
    assert field.times == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_without_guidance_the_scale_does_not_matter(prior):
    ends = [
        sample_prior(prior, PARTS, empty_tokens=EMPTY, noise=NOISE, steps=3, guidance_scale=scale)
        for scale in (1.0, 0.3)
    ]
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    "strength, first, calls", [(1.0, 1.0, 25), (0.3, 0.32, 8), (0.4, 0.4, 10), (0.01, 0.04, 1)]
)
def test_the_start_is_rounded_up_to_a_step(strength, first, calls):
    field = CountingPrior()
    sample_prior(
        field, PARTS, empty_tokens=EMPTY, noise=NOISE, init_tokens=INIT, strength=strength, guidance_scale=1.0
    )
    assert len(field.times) == calls and field.times[0] == pytest.approx(first)


def test_a_strength_of_zero_keeps_the_tokens():
    field = CountingPrior()
    kept = sample_prior(field, PARTS, empty_tokens=EMPTY, noise=NOISE, init_tokens=INIT, strength=0.0)
    assert torch.equal(kept, INIT) and field.times == []


def test_full_strength_forgets_the_tokens(prior):
    options = {"empty_tokens": EMPTY, "noise": NOISE, "steps": 4}
    fresh = sample_prior(prior, PARTS, **options)
    assert torch.equal(sample_prior(prior, PARTS, init_tokens=INIT, **options), fresh)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_callback_sees_every_step_and_an_estimate_of_the_end(name):
    seen = []

    def straight(x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
        return torch.full_like(x, 0.25)

    end = sample_prior(
        straight, PARTS, empty_tokens=EMPTY, noise=NOISE, steps=6, solver=name,
        callback=lambda step, total, estimate: seen.append((step, total, estimate)),
    )
    assert [(step, total) for step, total, _ in seen] == [(step, 6) for step in range(1, 7)]
    for _, _, estimate in seen:
        torch.testing.assert_close(estimate, end)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_raising_callback_cancels_at_once(name):
    class Cancelled(Exception):
        pass

    def cancel(step: int, total: int, estimate: Tensor) -> None:
        if step == 3:
            raise Cancelled

    field = CountingPrior()
    with pytest.raises(Cancelled):
        sample_prior(field, PARTS, empty_tokens=EMPTY, noise=NOISE, steps=25, solver=name, callback=cancel)
    assert len(field.times) == {"midpoint": 5, "heun": 5}.get(name, 3)


def test_sampling_writes_into_none_of_its_inputs(prior):
    inputs = {"empty_tokens": EMPTY, "noise": NOISE, "init_tokens": INIT}
    before = {name: value.clone() for name, value in inputs.items()}
    sample_prior(prior, PARTS, steps=2, strength=0.9, **inputs)
    assert all(torch.equal(inputs[name], value) for name, value in before.items())


def test_each_concept_draws_its_own_noise():
    batch = concept_noise(7, 3, WIDTH)
    assert batch.shape == (3, 16, WIDTH) and batch.dtype == torch.float32
    for index, row in enumerate(batch):
        assert torch.equal(row, concept_noise(7 + index, 1, WIDTH)[0])
    assert torch.equal(concept_noise(2**64 - 1, 2, 8)[1], concept_noise(0, 1, 8)[0])


def test_training_times_are_logit_normal():
    t = logit_normal_time(20000, torch.Generator().manual_seed(0))
    normal = torch.logit(t.double())
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.02 and 0 < t.min() < t.max() < 1
    assert torch.equal(t, logit_normal_time(20000, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("changes, message", [
    ({"solver": "rk4"}, "solvers euler, heun, midpoint, ab2, .*, got 'rk4'"),
    ({"steps": 0}, "at least 1 for steps, got 0"),
    ({"steps": -4}, "at least 1 for steps, got -4"),
    ({"guidance_scale": math.nan}, "finite number for guidance_scale, got nan"),
    ({"guidance_scale": math.inf}, "finite number for guidance_scale, got inf"),
    ({"strength": 0.5}, "init_tokens to start from with a strength of 0.5, got none"),
    ({"strength": 1.5, "init_tokens": INIT}, "strength between 0 and 1, got 1.5"),
    ({"strength": -0.1, "init_tokens": INIT}, "strength between 0 and 1, got -0.1"),
    ({"strength": math.nan, "init_tokens": INIT}, "strength between 0 and 1, got nan"),
    ({"init_tokens": INIT[:1]}, r"noise, \[2, 16, 48\], got \[1, 16, 48\]"),
    ({"parts": PARTS[:, :0]}, "one or more slots of 16 tokens in parts, got 0"),
    ({"parts": PARTS[:, :40]}, "one or more slots of 16 tokens in parts, got 40"),
    ({"parts": PARTS[..., :32]}, "got the widths 32, 48 and 48"),
    ({"empty_tokens": EMPTY[..., :40]}, "got the widths 48, 40 and 48"),
    ({"noise": NOISE[..., :24]}, "got the widths 48, 48 and 24"),
    ({"parts": PARTS[:1]}, "as many concepts as parts, 1, got noise for 2"),
])
def test_inputs_that_do_not_fit_are_refused_before_the_first_step(changes, message):
    options = {"parts": PARTS, "empty_tokens": EMPTY, "noise": NOISE} | changes
    field = CountingPrior()
    with pytest.raises(ValueError, match=message):
        sample_prior(field, options.pop("parts"), **options)
    assert field.times == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_result_that_is_not_finite_is_an_error(value):
    with pytest.raises(FloatingPointError, match="values that are not finite"):
        sample_prior(CountingPrior(value), PARTS, empty_tokens=EMPTY, noise=NOISE, steps=2)
