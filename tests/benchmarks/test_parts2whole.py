"""The benchmark of Parts2Whole: its baseline gives what the published code gives, and ours the same."""

import argparse

import pytest
import torch

from benchmarks import parts2whole
from benchmarks.parts2whole import PublishedReading, measure, new_networks, print_table
from pit.parts2whole.unets import SELF, Denoiser, blocks_of
from tests.parts2whole.cases import assert_close, golden_case, load_wide, write_published

TINY = {
    "block_out_channels": [32, 64], "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}


@pytest.fixture(scope="module")
def networks():
    return new_networks(TINY)


@torch.no_grad()
def test_the_baseline_gives_the_published_output(golden, tmp_path):
    model = load_wide(write_published(golden, tmp_path / "published"))
    case = golden_case(golden, "cfg_two")
    denoiser = Denoiser(model.unet, model.decoupled)
    blocks = blocks_of(model.unet)
    processors = {block + SELF: PublishedReading(block) for block in blocks}
    model.unet.set_attn_processor(dict(model.unet.attn_processors) | processors)
    written = case.written(model.reference_unet)
    bank = {block: [each[None].repeat(2, 1, 1) for each in written[block].features] for block in blocks}
    pose = model.pose_guider(case.given["pose"])
    ours = denoiser(case.given["sample"], case.facts["t"], case.text, case.images, pose, bank)
    assert_close(ours, case.given["out"])


@torch.inference_mode()
@pytest.mark.parametrize("masked_out", [0.0, 0.5])
def test_both_ways_give_the_same(networks, masked_out):
    row = measure(networks, 64, 3, masked_out, 1)
    assert row.difference < 1e-4 and min(row.seconds) > 0 and row.writing > 0
    assert row.peaks[0] > row.peaks[1] > 0


@torch.inference_mode()
def test_the_table_has_a_line_for_each_task(networks, capsys):
    print_table(networks, argparse.Namespace(sides=[32, 64], references=[1, 2], masked_out=[0.0], repeats=1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(" MB " in line for line in lines[1:])


def test_the_networks_have_the_published_size(golden):
    listed = golden.facts("parts2whole_full_keys")
    for name, empty in (("unet/", parts2whole.empty_unet), ("reference", parts2whole.empty_reference_unet)):
        keys = next(value for key, value in listed.items() if key.startswith(name))
        ours = {key: list(value.shape) for key, value in empty(parts2whole.CONFIG).state_dict().items()}
        assert ours == keys
