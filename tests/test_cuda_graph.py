"""Recording needs a GPU; that everything goes on without one, and when to record, does not."""
import logging

import pytest
import torch
from torch import nn

from pit.flow.cuda_graph import recordable, recorded
from pit.piece_it_together.sample import concept_noise, sample_prior
from tests.piece_it_together.test_prior import random_prior

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
SIZES = {"embedding_dim": 64, "hidden_dim": 64, "num_layers": 2, "num_heads": 4}


@torch.inference_mode()
def test_nothing_is_recorded_on_the_cpu():
    assert not recordable(nn.Linear(4, 4), torch.zeros(1, 4))


@pytest.mark.skipif(torch.cuda.is_available(), reason="recording works here")
def test_what_cannot_be_recorded_runs_as_it_is_and_says_why(caplog):
    def step(x):
        return 2 * x

    with caplog.at_level(logging.WARNING):
        assert recorded(step, [torch.zeros(3)]) is None
    assert "without a CUDA graph: " in caplog.text


def sampled(prior, device: str, **settings) -> torch.Tensor:
    torch.manual_seed(0)
    parts, empty = torch.randn(2, 48, 64), torch.randn(1, 16, 64)
    return sample_prior(
        prior.to(device), parts.to(device), empty_tokens=empty.to(device),
        noise=concept_noise(7, 2, 64).to(device), **settings,
    ).cpu()


@needs_gpu
@pytest.mark.parametrize("solver", ["euler", "heun", "midpoint", "unipc"])
@torch.inference_mode()
def test_a_recorded_prior_draws_what_the_cpu_draws(solver, monkeypatch, caplog):
    used = []
    monkeypatch.setattr(
        "pit.piece_it_together.prior.recorded", lambda *inputs: used.append(recorded(*inputs)) or used[-1]
    )
    prior = random_prior(**SIZES)
    settings = {"solver": solver, "steps": 12, "guidance_interval": (0.2, 0.9)}
    alone, gpu = sampled(prior, "cpu", **settings), sampled(prior, "cuda", **settings)
    assert [type(step).__name__ for step in used] == ["RecordedStep", "RecordedStep"]
    torch.testing.assert_close(gpu, alone, rtol=1e-3, atol=1e-3)


@needs_gpu
@torch.inference_mode()
def test_patched_and_half_loaded_weights_are_not_recorded():
    like = torch.zeros(1, 4, device="cuda")
    layer = nn.Linear(4, 4, device="cuda")
    assert recordable(layer, like)
    assert not recordable(layer, like.half())
    assert not recordable(nn.Linear(4, 4), like)
    layer.weight_function = [lambda weight: weight + 1]
    assert not recordable(layer, like)


@needs_gpu
def test_a_step_that_waits_for_the_gpu_runs_as_it_is(caplog):
    def step(x):
        return x * x.sum().item()

    assert recorded(step, [torch.ones(3, device="cuda")]) is None
    assert "without a CUDA graph: " in caplog.text
