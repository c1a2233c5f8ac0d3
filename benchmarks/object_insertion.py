"""Object insertion by the published loop and by ours, at equal output, and in fewer steps at no larger error.

The network has the published size and random weights. The published loop always takes three passes in each of
its 100 steps: with object and scene, with the scene, with neither. Ours leaves out those that do not count,
and the recommended setting takes at most 30 steps of a second-order sampler. The ways take turns. Errors are
distances to the result of 1000 steps from the same noise, in a network of the same structure that is as many
times narrower as `--narrow` says, since 1000 steps at the published size take hours on a CPU. Run in the
folder of the pack:

    python -m benchmarks.object_insertion
"""
from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from pit.object_insertion.embedding_optimizer import CONTEXT_TOKENS
from pit.object_insertion.sampling import (
    GUIDANCE,
    IMAGE_GUIDANCE,
    STEPS,
    TRAINED_STEPS,
    guided,
    is_guided,
    leading_sigmas,
    scaled_linear_sigmas,
)

CONFIG = {
    "in_channels": 8, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
RECOMMENDED_STEPS = 30
# Those of the published scripts, and two settings at which not all passes count.
GUIDANCES = ((GUIDANCE, IMAGE_GUIDANCE), (GUIDANCE, 1.0), (2.5, 2.5))
Predict = Callable[[Tensor, float], Tensor]
"""From latents `[B, 4, h, w]` at a noise level, the noise that guidance follows."""


@dataclass(frozen=True)
class Scene:
    """What is inserted, and where: a context `[B, 77, C]`, and the scene's latents `[B, 4, h, w]`."""

    context: Tensor
    latents: Tensor


def new_unet(config: Mapping[str, Any], narrow: int = 1) -> UNet2DConditionModel:
    """A UNet with random weights through which signals keep their size."""
    torch.manual_seed(0)
    widths = tuple(width // narrow for width in config["block_out_channels"])
    groups = next(count for count in range(32, 0, -1) if all(width % count == 0 for width in widths))
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            **dict(config) | {"block_out_channels": widths, "norm_num_groups": groups}
        )
    unet = unet.to_empty(device="cpu").eval().requires_grad_(False)
    for name, weight in unet.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(float(name.endswith("weight")))
    return unet


def timestep(sigma: float) -> float:
    """The timestep of a noise level, between those of the training by the logarithm."""
    table = scaled_linear_sigmas().log()
    level = torch.tensor(sigma).log()
    above = int(torch.searchsorted(table, level).clamp(1, TRAINED_STEPS - 1))
    share = (level - table[above - 1]) / (table[above] - table[above - 1])
    return float((above - 1 + share).clamp(0, TRAINED_STEPS - 1))


def three_passes(unet: nn.Module, scene: Scene, guidance: float, image_guidance: float) -> Predict:
    """As the published loop: always all three, combined as clean pictures and turned into noise again."""
    zeros = torch.zeros_like(scene.context)
    contexts = torch.cat([scene.context, zeros, zeros])
    latents = torch.cat([scene.latents, scene.latents, torch.zeros_like(scene.latents)])

    def predict(x: Tensor, sigma: float) -> Tensor:
        inputs = torch.cat([(x / (sigma**2 + 1) ** 0.5).repeat(3, 1, 1, 1), latents], dim=1)
        noise = unet(inputs, timestep(sigma), contexts).sample
        clean = guided(*(x - sigma * each for each in noise.chunk(3)), guidance, image_guidance)
        return (x - clean) / sigma

    return predict


def passes_that_count(unet: nn.Module, scene: Scene, guidance: float, image_guidance: float) -> Predict:
    """As the guider of Insert Object: neither + image * (scene - neither) + guidance * (both - scene)."""
    zeros, nothing = torch.zeros_like(scene.context), torch.zeros_like(scene.latents)
    shares = {"both": guidance, "scene": image_guidance - guidance, "neither": 1 - image_guidance}
    if not is_guided(guidance, image_guidance):
        shares = {"both": 1.0}
    given = {
        "both": (scene.context, scene.latents), "scene": (zeros, scene.latents), "neither": (zeros, nothing),
    }
    counting = [name for name, share in shares.items() if share]
    contexts, latents = (torch.cat([given[name][place] for name in counting]) for place in (0, 1))

    def predict(x: Tensor, sigma: float) -> Tensor:
        repeated = (x / (sigma**2 + 1) ** 0.5).repeat(len(counting), 1, 1, 1)
        noise = unet(torch.cat([repeated, latents], dim=1), timestep(sigma), contexts).sample
        parts = zip(counting, noise.chunk(len(counting)), strict=True)
        return sum(shares[name] * each for name, each in parts)

    return predict


def ancestral(predict: Predict, x: Tensor, sigmas: Sequence[float], seed: int = 1) -> Tensor:
    """The published sampler: Euler's steps further down than asked, and new noise back up."""
    generator = torch.Generator().manual_seed(seed)
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        up = (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
        down = (after**2 - up**2) ** 0.5
        noise = torch.randn(x.shape, generator=generator).to(x)
        x = x + predict(x, sigma) * (down - sigma) + up * noise
    return x


def euler(predict: Predict, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The first-order sampler without new noise."""
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        x = x + predict(x, sigma) * (after - sigma)
    return x


def dpmpp_2m(predict: Predict, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095), as ComfyUI's sampler of this name."""
    old, step = None, 0.0
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        clean = x - sigma * predict(x, sigma)
        if not after:
            return clean
        last, step = step, float(torch.tensor(sigma / after).log())
        ahead = clean if old is None else clean + (clean - old) * step / (2 * last)
        x = after / sigma * x + (1 - after / sigma) * ahead
        old = clean
    return x


def karras_sigmas(steps: int, rho: float = 7.0) -> Tensor:
    """The noise levels of ComfyUI's scheduler "karras" (arXiv 2206.00364), from the highest to the lowest."""
    table = scaled_linear_sigmas()
    ends = table[-1] ** (1 / rho), table[0] ** (1 / rho)
    levels = torch.lerp(*ends, torch.linspace(0, 1, steps)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def start(scene: Scene, sigmas: Tensor, seed: int = 0) -> Tensor:
    """The first latents, as the published pipeline scales them."""
    noise = torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(seed))
    return noise.to(scene.latents) * (sigmas[0] ** 2 + 1) ** 0.5


def new_scene(side: int, width: int, objects: int, device: torch.device) -> Scene:
    torch.manual_seed(1)
    context = torch.randn(objects, CONTEXT_TOKENS, width)
    latents = torch.randn(1, 4, side // 8, side // 8).expand(objects, -1, -1, -1)
    return Scene(context.to(device), latents.to(device))


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Row:
    """Seconds of a step of the published loop and of ours, and how far their outputs differ."""

    published: float
    ours: float
    difference: float

    @property
    def same_steps(self) -> float:
        return self.published / self.ours

    @property
    def fewer_steps(self) -> float:
        return self.same_steps * STEPS / RECOMMENDED_STEPS


def measure(unet: nn.Module, scene: Scene, guidances: tuple[float, float], repeats: int) -> Row:
    """Median seconds of a step, in turns after one each to warm up."""
    device, sigma = scene.latents.device, float(scaled_linear_sigmas()[500])
    ways = [way(unet, scene, *guidances) for way in (three_passes, passes_that_count)]
    x = start(scene, torch.tensor([sigma]))
    theirs, ours = (way(x, sigma) for way in ways)
    times = [[seconds_of(lambda way=way: way(x, sigma), device) for way in ways] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Row(*medians, ((ours - theirs).abs().max() / theirs.abs().max()).item())


def errors(
    unet: nn.Module, scene: Scene, reference: int = TRAINED_STEPS, published: int = STEPS,
    fewer: Sequence[int] = (RECOMMENDED_STEPS, 20),
) -> dict[str, float]:
    """Distances to the result of `reference` steps from the same noise, relative to its size."""
    predict = passes_that_count(unet, scene, GUIDANCE, IMAGE_GUIDANCE)

    def sampled(sampler: Callable[..., Tensor], sigmas: Tensor) -> Tensor:
        levels = torch.unique_consecutive(sigmas)
        return sampler(predict, start(scene, levels), levels.tolist())

    exact = sampled(dpmpp_2m, leading_sigmas(reference))
    found = {
        f"published: euler_ancestral, {published} steps": sampled(ancestral, leading_sigmas(published)),
        f"euler, {published} steps": sampled(euler, leading_sigmas(published)),
    }
    for steps in fewer:
        found[f"dpmpp_2m, {steps} steps, published spacing"] = sampled(dpmpp_2m, leading_sigmas(steps))
        found[f"dpmpp_2m, {steps} steps, karras"] = sampled(dpmpp_2m, karras_sigmas(steps))
    return {name: ((each - exact).norm() / exact.norm()).item() for name, each in found.items()}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="steps of each way (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="pixels (default: %(default)s)")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4], help="at once (default: 1 4)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--narrow", type=int, default=10, help="of the network for errors (default: %(default)s)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"Object insertion at {options.side} pixels in fp32, median of {options.repeats} steps in turns")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print_speed(CONFIG, options)
    print_errors(CONFIG, options)


def print_speed(config: Mapping[str, Any], options: argparse.Namespace) -> None:
    """One line for each device, guidance and number of objects."""
    print(f"{'device':>24}{'guidance':>10}{'objects':>9}{'published':>12}{'ours':>10}", end="")
    print(f"{'same steps':>12}{f'{RECOMMENDED_STEPS} for {STEPS}':>12}{'difference':>12}")
    unet = new_unet(config)
    for device in devices():
        if device is None:
            print(f"{'GPU':>24}   not measured: there is none")
            continue
        unet.to(device)
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        for guidances in GUIDANCES:
            for objects in options.objects:
                scene = new_scene(options.side, config["cross_attention_dim"], objects, device)
                row = measure(unet, scene, guidances, options.repeats)
                print(
                    f"{name[-24:]:>24}{f'{guidances[0]:g}, {guidances[1]:g}':>10}{objects:>9}"
                    f"{row.published:>10.3f} s{row.ours:>8.3f} s{row.same_steps:>12.2f}"
                    f"{row.fewer_steps:>12.2f}{row.difference:>12.1e}", flush=True,
                )


def devices() -> list[torch.device | None]:
    """The CPU, and the GPU or None."""
    return [torch.device("cpu"), torch.device("cuda") if torch.cuda.is_available() else None]


def print_errors(config: Mapping[str, Any], options: argparse.Namespace) -> None:
    """One line for each way to sample."""
    print(f"distance to {TRAINED_STEPS} steps, network {options.narrow} times narrower")
    device = devices()[1] or devices()[0]
    unet = new_unet(config, options.narrow).to(device)
    scene = new_scene(options.side, config["cross_attention_dim"], 1, device)
    for name, error in errors(unet, scene).items():
        print(f"{name:>44}{error:>10.4f}", flush=True)


if __name__ == "__main__":
    main()
