"""A step of Parts2Whole with guidance, against the published forward, at equal output.

The networks have the published size and random weights. The published code reads the references of both
halves of a batch in every step: it projects and attends with all tokens of all references as queries, too,
keeps those of the picture, and computes the negative half once more without references. Here the keys and
values of the references are computed once, masked tokens are one token, and the negative half reads nothing.
Both take turns. Run in the folder of the pack:

    python -m benchmarks.parts2whole
"""
from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.peak_memory import LiveBytes
from pit.ip_adapter.attention import ImageCrossAttention
from pit.parts2whole.references import reading
from pit.parts2whole.sample import Conditions, predicted_noise
from pit.parts2whole.unets import (
    SELF,
    Denoiser,
    blocks_of,
    empty_reference_unet,
    empty_unet,
    widths_of,
    write_references,
)
from pit.unet import multi_head_attention

CONFIG = {
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
WORDS, TIMESTEP, GUIDANCE = 77, 500, 3.5


@dataclass(frozen=True)
class Networks:
    """The three that a step takes, on the CPU, with random weights."""

    denoiser: Denoiser
    reference_unet: UNet2DConditionModel
    words: int  # the width of an embedded word


class PublishedReading:
    """Self-attention as the published code reads references: a list of features for each block."""

    def __init__(self, block: str):
        self.block = block

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, references: Mapping[str, Sequence[Tensor]] | None = None,
        reads: Sequence[bool] = (), images: Tensor | None = None, scale_of_images: float = 1.0,
    ) -> Tensor:
        everything = torch.cat([hidden_states, *references[self.block]], 1)
        out = self.attend(attn, everything)[:, :hidden_states.shape[1]].clone()
        half = len(out) // 2
        out[:half] = self.attend(attn, hidden_states[:half])
        return out

    @staticmethod
    def attend(attn: Attention, hidden: Tensor) -> Tensor:
        attended = multi_head_attention(attn.to_q(hidden), attn.to_k(hidden), attn.to_v(hidden), attn.heads)
        return attn.to_out[1](attn.to_out[0](attended))


def filled(module: nn.Module) -> nn.Module:
    """A module of the meta device with random weights through which signals keep their size."""
    module = module.to_empty(device="cpu").eval().requires_grad_(False)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(float(name.endswith("weight")))
    return module


def new_networks(config: Mapping[str, Any]) -> Networks:
    torch.manual_seed(0)
    unet, width = filled(empty_unet(config)), config["cross_attention_dim"]
    decoupled = filled(ImageCrossAttention(width, widths_of(unet), device="meta"))
    return Networks(Denoiser(unet, decoupled).eval(), filled(empty_reference_unet(config)), width)


@dataclass(frozen=True)
class Way:
    """A way to take a step: the attention processors of the UNet, and what they are given."""

    name: str
    processors: dict[str, Any]
    given: Conditions


def ways(networks: Networks, side: int, references: int, masked_out: float) -> tuple[list[Way], float]:
    """The published way and ours for one task, and the seconds in which the references were written."""
    latents, words = torch.randn(1, 4, side // 8, side // 8), networks.words
    masks = torch.ones(references, 1, side, side)
    masks[..., :int(side * masked_out), :] = 0
    labels = torch.randn(references, WORDS, words)
    start = time.perf_counter()
    written = write_references(
        networks.reference_unet, latents.expand(references, -1, -1, -1), labels, masks
    )
    seconds = time.perf_counter() - start
    denoiser = networks.denoiser
    ours, blocks = dict(denoiser.unet.attn_processors), blocks_of(denoiser.unet)
    text, images = torch.randn(2, 1, WORDS, words), torch.randn(1, references, words)
    given = Conditions(*text, images, references=denoiser.keys_and_values(reading(written)))
    # The published bank holds features of both halves, each reference by itself.
    bank = {block: [each[None].repeat(2, 1, 1) for each in written[block].features] for block in blocks}
    theirs = ours | {block + SELF: PublishedReading(block) for block in blocks}
    return [Way("published", theirs, replace(given, references=bank)), Way("ours", ours, given)], seconds


def step(networks: Networks, way: Way, noisy: Tensor) -> Tensor:
    """The noise that a way predicts."""
    networks.denoiser.unet.set_attn_processor(dict(way.processors))
    return predicted_noise(networks.denoiser, noisy, TIMESTEP, way.given, GUIDANCE)


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_of(networks: Networks, way: Way, noisy: Tensor) -> int:
    """The bytes that live at once at most in a step, without the weights and what is given."""
    there = [*networks.denoiser.parameters(), *tree_leaves(list(vars(way.given).values())), noisy]
    with LiveBytes() as live:
        # Views of them are no new memory.
        live.known |= {each.untyped_storage()._cdata for each in there if isinstance(each, Tensor)}
        step(networks, way, noisy)
    return live.peak


@dataclass(frozen=True)
class Row:
    """What was found for one task; of the published way first, then of ours."""

    seconds: tuple[float, float]
    peaks: tuple[int, int]
    difference: float
    writing: float

    @property
    def gain(self) -> float:
        return self.seconds[0] / self.seconds[1]


def measure(networks: Networks, side: int, references: int, masked_out: float, repeats: int) -> Row:
    """Median seconds of a step, in turns after one each to warm up; peak bytes; how far outputs differ."""
    both, writing = ways(networks, side, references, masked_out)
    noisy = torch.randn(1, 4, side // 8, side // 8)
    theirs, ours = (step(networks, way, noisy) for way in both)
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    times = [[seconds_of(lambda way=way: step(networks, way, noisy)) for way in both] for _ in range(repeats)]
    peaks = [peak_of(networks, way, noisy) for way in both]
    networks.denoiser.unet.set_attn_processor(dict(both[1].processors))
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Row(tuple(medians), tuple(peaks), difference, writing)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="steps of each way (default: %(default)s)")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="default: 256 512")
    parser.add_argument("--references", type=int, nargs="+", default=[2, 4], help="default: 2 4")
    parser.add_argument("--masked-out", type=float, nargs="+", default=[0.0, 0.5], help="default: 0 0.5")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"Parts2Whole, a step with guidance {GUIDANCE:g} in fp32, median of {options.repeats} in turns")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print_table(new_networks(CONFIG), options)


def print_table(networks: Networks, options: argparse.Namespace) -> None:
    """One line for each size, number of references and share that is masked out."""
    print(f"{'side':>5}{'references':>11}{'masked out':>11}{'writing':>9}{'published':>11}", end="")
    print(f"{'ours':>8}{'ratio':>7}{'difference':>12}{'peak, published and ours':>26}")
    for side in options.sides:
        for count in options.references:
            for share in options.masked_out:
                row = measure(networks, side, count, share, options.repeats)
                peaks = " ".join(f"{peak / 1e6:.0f} MB" for peak in row.peaks)
                print(
                    f"{side:>5}{count:>11}{share:>11.0%}{row.writing:>7.2f} s{row.seconds[0]:>9.2f} s"
                    f"{row.seconds[1]:>6.2f} s{row.gain:>7.2f}{row.difference:>12.1e}{peaks:>26}", flush=True,
                )


if __name__ == "__main__":
    main()
