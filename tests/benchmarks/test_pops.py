"""The benchmark of pOps: its baseline gives what the published code gives, and ours the same."""

import pytest
import torch

from benchmarks import pops
from benchmarks.pops import BASELINE, PAIRS, measure, new_task, ours, print_table, published_sampler, rows_of
from pit.pops.files import load_operator
from pit.pops.prior import PriorTransformer
from tests.golden import assert_equal

TINY = {"embedding_dim": 24, "hidden_dim": 32, "num_layers": 3, "num_heads": 4}
STEPS = 4


@pytest.fixture
def task():
    return new_task(torch.device("cpu"), STEPS, **TINY)


@torch.no_grad()
@pytest.mark.golden_keys("pops_tiny_io", r"loop\.binary_cfg8\.image_embeds")
def test_the_baseline_gives_the_published_output(golden, key):
    heads = golden.facts("pops_tiny_config")["prior"]["num_attention_heads"]
    operator = load_operator(golden.path("pops_tiny_state.safetensors"), num_heads=heads)
    given = golden.below("pops_tiny_io", key.removesuffix("image_embeds"))
    found = published_sampler(
        operator, given["hidden"], given["init_latents"], given["step_noise"],
        given["guidance_scale"].item(),
    )
    assert_equal(found, given["image_embeds"])


@torch.inference_mode()
def test_all_ways_give_the_same_for_one_pair_and_for_many(task):
    exact = task.run(BASELINE.call, PAIRS)
    assert exact.shape == (PAIRS, TINY["embedding_dim"]) and exact.isfinite().all()
    assert_equal(task.run(ours, PAIRS), exact)
    single, batch = measure(task, pops.ways_in("float32"), exact, 2)
    assert max(single.difference, batch.difference) < 1e-5 and min(single.seconds, batch.seconds) > 0
    assert batch.each == batch.seconds / PAIRS
    far = measure(task, [BASELINE], exact + 1, 1)[0]
    assert far.difference > 1e-2


@torch.inference_mode()
@pytest.mark.parametrize("has_bf16", [True, False])
def test_bfloat16_is_measured_where_there_is_some_and_else_marked(task, monkeypatch, capsys, has_bf16):
    monkeypatch.setattr(pops, "cpu_has_bf16", lambda: has_bf16)
    print_table(task, 1)
    table = capsys.readouterr().out
    assert "published loop, float32 (baseline)" in table and f"ours, float32, batch of {PAIRS}" in table
    assert (f"ours, bfloat16, batch of {PAIRS}" in table) == has_bf16
    assert ("bfloat16: not measured" in table) != has_bf16
    assert (task.operator.proj_in.weight.dtype is torch.bfloat16) == has_bf16


@torch.inference_mode()
def test_bfloat16_is_near(task, monkeypatch):
    monkeypatch.setattr(pops, "cpu_has_bf16", lambda: True)
    rows = rows_of(task, 1)
    assert len(rows) == 5 and all(1e-6 < row.difference < 0.2 for row in rows[3:])


def test_the_command_prints_its_table_and_marks_a_missing_gpu(monkeypatch, capsys):
    made = new_task
    monkeypatch.setattr(pops, "new_task", lambda device: made(device, STEPS, **TINY))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(pops, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr("sys.argv", ["pops", "--repeats", "1"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pops.main()
    told = capsys.readouterr().out
    for words in ("guidance 8, 25 steps", "ratio", "ours, bfloat16", "GPU: not measured"):
        assert words in told, words


def test_the_operator_has_the_published_size(golden):
    listed = golden.facts("pops_full_keys")
    found = {key: list(value.shape) for key, value in PriorTransformer(device="meta").state_dict().items()}
    assert found == listed["prior"]
