"""The benchmark of training: what it counts as memory, and that its baseline is the published loop."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import training
from benchmarks.peak_memory import LiveBytes, OnGPU, TrainingStep, counted_memory
from benchmarks.published_loop import PublishedLoop
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.training.recipes import PUBLISHED, RECOMMENDED, Sizes
from pit.piece_it_together.training.validation import batch_loss

WIDTH, SLOTS = 32, 3
SIZES = Sizes(hidden_dim=64, num_layers=3, num_heads=2)


def test_the_peak_is_the_most_that_lives_at_once():
    with LiveBytes() as live:
        kept = torch.zeros(1000)
        freed = torch.zeros(500)
        view = kept[10:].view(-1, 10)
        del freed
        more = torch.zeros(200)
    assert (live.alive, live.peak) == (4 * 1200, 4 * 1500)
    del kept, more
    assert live.alive == 4 * 1000 and view.numel() == 990


def test_weights_and_what_the_updates_keep_are_counted_to_the_byte():
    weights = sum(4 * weight.numel() for weight in IPPrior(WIDTH, 64, 3, 2).parameters())
    memory = counted_memory(replace(RECOMMENDED, batch=2, accumulation=3), SIZES, WIDTH, SLOTS)
    assert memory.parameters == memory.average == memory.gradients == weights
    assert 0 <= memory.optimizer - 2 * weights <= 4 * 100  # a step count for each weight
    assert counted_memory(replace(PUBLISHED, batch=2), SIZES, WIDTH, SLOTS).average == 0


def test_checkpointing_and_smaller_batches_take_less():
    def activations(**settings):
        return counted_memory(replace(RECOMMENDED, **settings), SIZES, WIDTH, SLOTS).activations

    whole = activations(batch=64)
    assert activations(batch=32) < 0.6 * whole
    assert activations(batch=64, gradient_checkpointing=True) < 0.6 * whole


@contextmanager
def autocast_without_gpu(device):
    """`torch.autocast` in bfloat16, which refuses a GPU that is not there; it ends whatever happens."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.autocast_increment_nesting()
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_under_autocast_leaves_nothing_of_it(device):
    with pytest.raises(RuntimeError, match="inside"), autocast_without_gpu(device):
        raise RuntimeError("inside")
    assert not torch.is_autocast_enabled(device)
    assert torch.autocast_increment_nesting() == 1 and torch.autocast_decrement_nesting() == 0


def test_what_is_counted_without_a_gpu_is_what_autocast_keeps_on_one():
    """On a fake GPU autocast works and only gradients do not; both then have the same attention kernel."""
    kept = {}
    for device, operations in (("cuda", torch.nn), ("cpu", OnGPU)):
        with FakeTensorMode(), LiveBytes() as live, sdpa_kernel(SDPBackend.MATH):
            step = TrainingStep(RECOMMENDED, SIZES, WIDTH, SLOTS, torch.device(device), operations)
            with autocast_without_gpu(device):
                loss = batch_loss(step.prior, step.random_batch())
            kept[device] = live.alive, live.peak, loss.dtype
    assert kept["cuda"] == kept["cpu"]


def tokens_of(pictures):
    return pictures.flatten(1)[:, : 16 * WIDTH].unflatten(1, (16, WIDTH))


def test_the_baseline_encodes_every_picture_at_every_step():
    torch.manual_seed(0)
    seen = []

    def encode(pictures):
        seen.append(pictures)
        return tokens_of(pictures)

    pictures = torch.randn(2, 1 + SLOTS, 3, 16, 16)
    loop = PublishedLoop(encode, IPPrior(WIDTH, 64, 1, 2), pictures)
    before = loop.prior.x_embedder.weight.clone()
    for _ in range(2):
        loop.step()
    assert torch.equal(torch.stack(seen[: 1 + SLOTS], dim=1), pictures) and len(seen) == 2 * (1 + SLOTS)
    assert not torch.equal(loop.prior.x_embedder.weight, before)


def test_both_ways_to_train_are_timed_on_the_same_network(capsys):
    scale = training.Scale("tiny", SIZES, WIDTH, 16, lambda device: tokens_of)
    training.print_speed(scale, 2, 1, torch.device("cpu"))
    lines = [line.rsplit(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: [float(cell) for cell in line[1:]] for line in lines[1:4]}
    assert list(rows) == ["published loop (baseline)", "token cache, published", "token cache, recommended"]
    baseline = rows["published loop (baseline)"]
    assert baseline[2] == 1 and all(row[2] > 0 for row in rows.values())
