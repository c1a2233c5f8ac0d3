"""The sampler against the published one, and its own promises."""

import pytest
import torch
from diffusers import UnCLIPScheduler
from torch import Tensor

from pit import sample_operator
from pit.pops.sample import LARGEST, alphas_cumprod, betas, operator_noise, schedule, timesteps
from tests.golden import Golden, assert_equal, number_in
from tests.pops.test_prior import golden_prior, seeded
from tests.pops.tiny import WIDTH, random_operator

CONDITION, NOISE = seeded(2, 2, 3, WIDTH), seeded(1, 2, WIDTH)


def golden_run(golden: Golden, key: str) -> dict[str, Tensor]:
    return golden.below("pops_tiny_io", key.removesuffix("image_embeds"))


@pytest.mark.golden_keys("pops_tiny_io", r"loop\.(?!seed)[^.]*\.image_embeds")
def test_every_run_gives_the_published_embedding(golden, key):
    run, prior, seen = golden_run(golden, key), golden_prior(golden), []
    steps = len(run["timesteps"])
    assert timesteps(steps) == run["timesteps"].tolist()
    found = sample_operator(
        prior, run["hidden"], noise=run["init_latents"], step_noise=run["step_noise"], steps=steps,
        guidance_scale=run["guidance_scale"].item(), callback=lambda *step: seen.append(step),
    )
    assert_equal(found, run["image_embeds"])
    assert [step[:2] for step in seen] == [(number, steps) for number in range(1, steps + 1)]
    for (_, _, estimate), guided in zip(seen, run["guided_pred"], strict=True):
        assert_equal(estimate, prior.raw(guided.clamp(-LARGEST, LARGEST)))


@pytest.mark.golden_keys("pops_tiny_io", r"loop\.seed\d+_cfg[\d.]+\.image_embeds")
def test_a_seed_draws_the_published_noise_in_the_published_order(golden, key):
    run, prior = golden_run(golden, key), golden_prior(golden)
    seed, scale = (number_in(key.removesuffix(".image_embeds"), word) for word in ("seed", "cfg"))
    steps = 25
    noise, step_noise = operator_noise(int(seed), 1, prior.embedding_dim, steps)
    found = sample_operator(
        prior, run["hidden"], noise=noise, step_noise=step_noise, steps=steps, guidance_scale=scale)
    assert_equal(found, run["image_embeds"])
    torch.manual_seed(int(seed))
    found = sample_operator(
        prior, run["hidden"], noise=torch.randn(noise.shape), steps=steps, guidance_scale=scale)
    assert_equal(found, run["image_embeds"])


def test_the_schedule_is_the_published_one(golden):
    io = golden.below("pops_tiny_io", "sched.")
    assert_equal(betas(), io["betas"])
    assert_equal(alphas_cumprod(), io["alphas_cumprod"])
    for key in (key for key in io if key.startswith(("timesteps_", "std_"))):
        name, _, steps = key.rpartition("_")
        found = schedule(int(steps))
        if name == "timesteps":
            assert found.timesteps == io[key].tolist()
        else:  # the last one is used by nobody
            assert_equal(found.noise[:-1], io[key][:-1])


@pytest.mark.parametrize("steps", [2, 7, 333, 1000])
def test_a_run_of_any_length_is_that_of_the_published_scheduler(steps):
    scheduler = UnCLIPScheduler(
        variance_type="fixed_small_log", clip_sample=True, clip_sample_range=LARGEST,
        prediction_type="sample",
    )
    scheduler.set_timesteps(steps)
    plan, generator = schedule(steps), torch.Generator().manual_seed(0)
    assert plan.timesteps == scheduler.timesteps.tolist()
    x = ours = torch.randn(1, 8, generator=generator)
    for step, t in enumerate(plan.timesteps):
        predicted = torch.randn(1, 8, generator=generator)
        state = generator.get_state()
        following = plan.timesteps[step + 1] if step + 1 < steps else None
        x = scheduler.step(predicted, t, x, prev_timestep=following, generator=generator).prev_sample
        generator.set_state(state)
        noise = torch.randn(1, 8, generator=generator) if t > 0 else torch.zeros(1, 8)
        ours = plan.clean[step] * predicted + plan.current[step] * ours + plan.noise[step] * noise
    assert_equal(ours, x)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(ValueError, match=f"Expected 1 to 1000 steps, got {steps}"):
        timesteps(steps)


def test_a_single_step_gives_the_prediction_itself():
    prior = random_operator()
    found = sample_operator(prior, CONDITION, noise=NOISE, steps=1)
    with torch.no_grad():
        expected = prior.raw(prior(NOISE, torch.tensor(999), CONDITION).clamp(-LARGEST, LARGEST))
    assert_equal(found, expected)


@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0])
def test_a_batch_gives_what_each_row_gives_alone(scale):
    prior, lengths = random_operator(), (3, 1)
    _, step_noise = operator_noise(5, 2, WIDTH, 4)
    mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    together = sample_operator(
        prior, CONDITION, noise=NOISE, step_noise=step_noise, steps=4, guidance_scale=scale, mask=mask)
    for row, length in enumerate(lengths):
        span = slice(row, row + 1)
        alone = sample_operator(
            prior, CONDITION[span, :length], noise=NOISE[span], step_noise=step_noise[:, span], steps=4,
            guidance_scale=scale,
        )
        assert_equal(alone[0], together[row])


def test_guidance_of_one_and_less_is_none():
    prior, (_, step_noise) = random_operator(), operator_noise(5, 2, WIDTH, 3)
    runs = [
        sample_operator(
            prior, CONDITION, noise=NOISE, step_noise=step_noise, steps=3, guidance_scale=scale)
        for scale in (1.0, 0.0, -3.0, 1.01)
    ]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], runs[3])


@pytest.mark.parametrize("width", [WIDTH, 48, 1280])
def test_a_row_of_the_noise_does_not_depend_on_the_others(width):
    noise, step_noise = operator_noise(7, 3, width, 4)
    assert noise.shape == (3, width) and step_noise.shape == (3, 3, width)
    for row in range(3):
        alone, its_steps = operator_noise(7 + row, 1, width, 4)
        assert torch.equal(alone[0], noise[row]) and torch.equal(its_steps[:, 0], step_noise[:, row])


def test_the_largest_seed_has_a_next_one():
    noise, _ = operator_noise(2**64 - 1, 2, WIDTH, 1)
    assert torch.equal(noise[1:], operator_noise(0, 1, WIDTH, 1)[0])


def test_half_precision_changes_little():
    _, step_noise = operator_noise(5, 2, WIDTH, 5)
    runs = [
        sample_operator(
            prior, CONDITION.to(prior.proj_in.weight.dtype), noise=NOISE, step_noise=step_noise, steps=5)
        for prior in (random_operator(), random_operator().bfloat16())
    ]
    assert runs[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*runs).min() > 0.99


@pytest.mark.parametrize("settings, message", [
    ({"noise": NOISE[:1]}, r"Expected noise of the shape \[2, 24\].*got \[1, 24\]"),
    ({"noise": NOISE[:, :5]}, r"Expected noise of the shape \[2, 24\].*got \[2, 5\]"),
    ({"step_noise": torch.zeros(25, 2, WIDTH)}, r"step_noise of the shape \[24, 2, 24\] for 25 steps"),
    ({"guidance_scale": float("nan")}, "Expected a finite number for guidance_scale, got nan"),
    ({"guidance_scale": float("inf")}, "Expected a finite number for guidance_scale, got inf"),
    ({"steps": 0}, "Expected 1 to 1000 steps"),
])
def test_inputs_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sample_operator(random_operator(), CONDITION, **{"noise": NOISE} | settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named_with_their_step(value):
    prior = random_operator()
    prior.proj_to_clip_embeddings.bias.data[0] = value
    with pytest.raises(FloatingPointError, match="not finite at step 1 of 3"):
        sample_operator(prior, CONDITION, noise=NOISE, steps=3)


def test_a_callback_may_stop_it():
    class Stopped(Exception):
        pass

    def stop(step: int, total: int, estimate: Tensor) -> None:
        raise Stopped(step)

    with pytest.raises(Stopped, match="1"):
        sample_operator(random_operator(), CONDITION, noise=NOISE, callback=stop)
