"""The benchmark of object insertion: its baseline gives what the published code gives, and ours the same."""
from __future__ import annotations

import argparse

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks import object_insertion as bench
from benchmarks.object_insertion import (
    GUIDANCES,
    Scene,
    ancestral,
    dpmpp_2m,
    euler,
    karras_sigmas,
    measure,
    new_scene,
    new_unet,
    passes_that_count,
    start,
    three_passes,
    timestep,
)
from pit.object_insertion.sampling import leading_sigmas, leading_timesteps, scaled_linear_sigmas
from tests.golden import relative_error

TINY = {
    "in_channels": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "cross_attention_dim": 24,
    "attention_head_dim": 2, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
IO = "object_insertion_tiny_io"


@pytest.fixture(scope="module")
def unet():
    return new_unet(TINY)


@pytest.fixture(scope="module")
def scene():
    return new_scene(64, 24, 1, torch.device("cpu"))


@pytest.mark.golden_keys(IO, r"pipe\.cfg[\d._]+\.scales")
@torch.no_grad()
def test_both_ways_give_the_published_guided_noise(golden, key):
    unet = UNet2DConditionModel(**golden.facts("object_insertion_tiny_config")["unet"]).eval()
    unet.load_state_dict(golden.below("object_insertion_tiny_state", "unet."))
    io = golden.below(IO, key.removesuffix("scales"))
    sigmas = io["sigmas"].tolist()
    latents = io["unet_in_first"][:1, 4:]
    given = Scene(io["context"][:1], latents)
    x = io["init_noise_unit"] * (sigmas[0] ** 2 + 1) ** 0.5
    for way in (three_passes, passes_that_count):
        found = way(unet, given, *io["scales"].tolist())(x, sigmas[0])
        assert relative_error(found, io["guided_eps"][0].view_as(found)) < 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("guidances, passes", [*zip(GUIDANCES, (3, 2, 2), strict=True), ((1.0, 2.0), 1)])
def test_both_ways_give_the_same_and_ours_takes_no_idle_pass(unet, scene, guidances, passes):
    counted = []

    def count(inputs, *rest):
        counted.append(len(inputs))
        return unet(inputs, *rest)

    x = torch.randn(1, 4, 8, 8)
    theirs, ours = (way(count, scene, *guidances)(x, 2.0) for way in (three_passes, passes_that_count))
    assert counted == [3, passes] and relative_error(ours, theirs) < 1e-4


def test_a_timestep_belongs_to_its_noise_level():
    table = scaled_linear_sigmas()
    for steps in (100, 30):
        for time in leading_timesteps(steps).tolist():
            assert abs(timestep(float(table[time])) - time) < 0.02
    assert timestep(1e-9) == 0 and timestep(100.0) == 999


@torch.inference_mode()
@pytest.mark.parametrize("sampler, order", [(euler, 1), (dpmpp_2m, 2)])
def test_samplers_have_their_order_on_gaussian_data(sampler, order):
    """Of a normal distribution of width w the noise is known, and so is where every path ends."""
    width = 0.7

    def predict(x, sigma):
        return x * sigma / (sigma**2 + width**2)

    x = torch.full((1, 1, 1, 1), 10.0)
    ends = []
    for steps in (40, 80):
        sigmas = karras_sigmas(steps).tolist()
        exact = 10 * width / (sigmas[0] ** 2 + width**2) ** 0.5
        ends.append(abs(float(sampler(predict, x, sigmas)) / exact - 1))
    assert ends[0] / ends[1] > 2 ** (order - 0.4) and ends[1] < 0.1


@torch.inference_mode()
def test_the_published_sampler_keeps_the_spread_of_gaussian_data():
    def predict(x, sigma):
        return x * sigma / (sigma**2 + 1)

    sigmas = leading_sigmas(50)
    scene = Scene(torch.zeros(400, 1, 1), torch.zeros(400, 4, 4, 4))
    found = ancestral(predict, start(scene, sigmas), sigmas.tolist())
    assert abs(found.std() - 1) < 0.1  # Euler's own error, with 50 steps


@torch.inference_mode()
def test_the_table_of_errors_names_every_way(unet, scene):
    found = bench.errors(unet, scene, 40, 10, (8,))
    assert len(found) == 4 and all(error > 0 for error in found.values())
    assert found["dpmpp_2m, 8 steps, karras"] < found["published: euler_ancestral, 10 steps"]


@torch.inference_mode()
def test_a_row_has_ratios(unet, scene):
    row = measure(unet, scene, GUIDANCES[1], 2)
    assert row.difference < 1e-4 and row.published > 0 and row.same_steps == row.published / row.ours
    assert row.fewer_steps == pytest.approx(row.same_steps * 100 / 30)


@torch.inference_mode()
def test_the_table_has_a_line_for_each_setting_and_tells_what_was_not_measured(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.print_speed(TINY, argparse.Namespace(side=64, objects=[1, 2], repeats=1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * len(GUIDANCES) + 1 and "not measured" in lines[-1]


@torch.inference_mode()
def test_the_whole_script_prints_both_tables(capsys, monkeypatch):
    few = bench.errors
    monkeypatch.setattr(bench, "errors", lambda unet, scene: few(unet, scene, 6, 4, (3,)))
    monkeypatch.setattr(bench, "CONFIG", TINY)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # for the tests that follow
    words = "bench --repeats 1 --side 32 --objects 1 --threads 1 --narrow 2"
    monkeypatch.setattr("sys.argv", words.split())
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Object insertion at 32 pixels in fp32, median of 1 steps in turns"
    assert "distance to 1000 steps, network 2 times narrower" in lines and "karras" in lines[-1]


def test_the_network_has_the_published_size(golden):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**bench.CONFIG)
    expected = golden.facts("object_insertion_full_keys")["unet"]
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == expected
    assert new_unet(TINY, 4).config.block_out_channels == (4, 8)
