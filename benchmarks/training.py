"""Training an IP-Prior: samples per second, where the time of a step goes, and peak memory.

The baseline is the published loop, which encodes the target and every slot one by one at each step; the
trainer of this pack reads tokens from a cache. Both train the same network on equally many samples and slots.
Weights and pictures are random, so no files are needed. Run in the folder of the pack:

    python -m benchmarks.training
"""
from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from benchmarks.peak_memory import counted_memory, measured_memory
from benchmarks.published_loop import Encoder, PublishedLoop, creature_encoder, vit_h_encoder
from pit.demo.models.sizes import ENCODER_SIZE, PRIOR, TOKEN_DIM
from pit.files.records import Fingerprint
from pit.ip_adapter.resampler import TOKENS_PER_PICTURE
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.training.cache import Sources, TokenCache, open_cache
from pit.piece_it_together.training.cache_writer import CacheWriter
from pit.piece_it_together.training.recipes import PRESETS, RECOMMENDED, Sizes
from pit.piece_it_together.training.start import new_prior
from pit.piece_it_together.training.task import PriorTask
from pit.training.recipes import RunSettings
from pit.training.state import TrainingState
from pit.training.trainer import Trainer

PARTS = 7
SLOTS = 1 + PARTS  # with the reference, like the published `characters` model
CONCEPTS = 128
WARM_UP = 1
UPDATES = 5
ENDLESS = 10**6  # more steps than any run here makes: nothing is validated or saved
MEMORY_BATCH = 64
MEMORY_PRESETS = ("recommended", "published", "8 GB card")
GB = 1e9


@dataclass(frozen=True)
class Scale:
    """The sizes of the models: `width` of the tokens, `pixels` on the side of a picture."""

    name: str
    sizes: Sizes
    width: int
    pixels: int
    encoder: Callable[[torch.device], Encoder]


PUBLISHED_SCALE = Scale("published size, ViT-H", Sizes(), 2048, 224, vit_h_encoder)
CREATURES = Scale(
    "creature size", Sizes(PRIOR["hidden_dim"], PRIOR["num_layers"], PRIOR["num_heads"]), TOKEN_DIM,
    ENCODER_SIZE, creature_encoder,
)


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step: all of it, making its batch (during the step before), waiting for it, copying it."""

    all: float
    drawing: float
    waiting: float
    copying: float


def clock(device: torch.device) -> float:
    """The time in seconds, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def new_network(scale: Scale, device: torch.device) -> IPPrior:
    """A prior with random weights."""
    sizes = scale.sizes
    return IPPrior(scale.width, sizes.hidden_dim, sizes.num_layers, sizes.num_heads, device=device)


def time_published_loop(scale: Scale, batch: int, steps: int, device: torch.device) -> float:
    """The seconds of a step of the published loop."""
    pictures = torch.randn(batch, 1 + SLOTS, 3, scale.pixels, scale.pixels, device=device)
    loop = PublishedLoop(scale.encoder(device), new_network(scale, device), pictures)
    for _ in range(WARM_UP):
        loop.step()
    start = clock(device)
    for _ in range(steps):
        loop.step()
    return (clock(device) - start) / steps


def random_cache(folder: Path, width: int) -> TokenCache:
    """A token cache of random concepts, with parts and a reference for every slot."""
    model = Fingerprint("random", (1.0,))
    sources = [(str(part), str(part)) for part in range(PARTS)]
    with CacheWriter(
        folder, width=width, variants=1, augmentation={}, encoder=model, adapter=model,
        empty=torch.randn(1, TOKENS_PER_PICTURE, width), uncond=torch.randn(1, TOKENS_PER_PICTURE, width),
    ) as writer:
        for number in range(CONCEPTS):
            target, reference, *parts = torch.randn(2 + PARTS, 1, TOKENS_PER_PICTURE, width)
            named = Sources(f"{number}", parts=tuple(sources), grids=("grid",))
            writer.add(named, target[0], parts, reference)
    return open_cache(folder)


def new_trainer(
    preset: str, scale: Scale, cache: TokenCache, batch: int, folder: Path, device: torch.device
) -> Trainer:
    """The trainer of the pack, with a preset changed to leave out no slots."""
    prior, config = new_prior(cache, scale.sizes, seed=0)
    recipe = replace(PRESETS[preset], batch=batch, steps=ENDLESS, shortened_share=0.0)
    settings = RunSettings(folder, save_every=ENDLESS, validate_every=ENDLESS)
    task = PriorTask(prior, config, cache, recipe, settings)
    return Trainer(task, recipe, settings, Accelerator(cpu=device.type == "cpu"))


def time_trainer(trainer: Trainer, steps: int) -> float:
    """The seconds of a step, as in a real run."""
    with trainer.batches() as batches:
        for number in range(WARM_UP + steps):
            if number == WARM_UP:
                start = clock(trainer.device)
            trainer.update(trainer.gradients(batches))
            trainer.watch(None)
        return (clock(trainer.device) - start) / steps


def time_waiting(trainer: Trainer, steps: int) -> StepTimes:
    """The same, with a stop of the clock around each batch, which keeps a GPU from running ahead."""
    waiting = copying = total = 0.0
    with trainer.batches() as batches:
        trainer.update(trainer.gradients(batches))
        for _ in range(steps):
            start = clock(trainer.device)
            batch = next(batches)
            there = time.perf_counter()
            batch.to(trainer.device)
            copied = clock(trainer.device)
            # Copies again, so the copy above is not part of the step.
            trainer.update(trainer.gradients(iter([batch])))
            total += clock(trainer.device) - start - (copied - there)
            waiting += there - start
            copying += copied - there
    start = time.perf_counter()
    trainer.draw(trainer.state.step, 0)
    return StepTimes(total / steps, time.perf_counter() - start, waiting / steps, copying / steps)


def time_updates(scale: Scale, device: torch.device, fused: bool) -> list[float]:
    """The seconds of AdamW and of averaging the weights: as in the trainer, or one weight at a time."""
    prior = new_network(scale, device)
    for parameter in prior.parameters():
        parameter.grad = torch.randn_like(parameter)
    if fused:
        state, loss = TrainingState(prior, RECOMMENDED, 1e-5), torch.zeros((), device=device)
        updates = (state.optimizer.step, lambda: state.finish_step(loss))
    else:
        optimizer = torch.optim.AdamW(prior.parameters(), 1e-5, foreach=False, fused=False)
        averaged = copy.deepcopy(prior)
        updates = (optimizer.step, lambda: average(averaged, prior))
    return [median_time(update, device) for update in updates]


@torch.no_grad()
def average(averaged: nn.Module, prior: nn.Module) -> None:
    """Update a moving average of the weights, one weight at a time."""
    for mean, weight in zip(averaged.parameters(), prior.parameters(), strict=True):
        mean.mul_(RECOMMENDED.ema_decay).add_(weight, alpha=1 - RECOMMENDED.ema_decay)


def median_time(call: Callable[[], object], device: torch.device) -> float:
    """The median seconds of a call, after one to warm up."""
    times = []
    for _ in range(1 + UPDATES):
        start = clock(device)
        call()
        times.append(clock(device) - start)
    return statistics.median(times[1:])


def print_speed(scale: Scale, batch: int, steps: int, device: torch.device) -> None:
    """Samples per second, then where a step with the preset "recommended" spends its time."""
    seconds = {"published loop (baseline)": time_published_loop(scale, batch, steps, device)}
    with tempfile.TemporaryDirectory() as folder:
        cache = random_cache(Path(folder, "cache"), scale.width)
        for preset in ("published", "recommended"):
            trainer = new_trainer(preset, scale, cache, batch, Path(folder, preset), device)
            seconds[f"token cache, {preset}"] = time_trainer(trainer, steps)
        waiting = time_waiting(trainer, steps)
        del trainer, cache
    baseline = next(iter(seconds.values()))
    print(f"{'training':<32}{'seconds a step':>16}{'samples a second':>18}{'ratio':>8}")
    for name, spent in seconds.items():
        print(f"{name:<32}{spent:>16.3f}{batch / spent:>18.2f}{baseline / spent:>8.2f}")
    print_waiting(waiting)
    plain, fused = (time_updates(scale, device, fused) for fused in (False, True))
    print_updates(plain, fused, seconds["token cache, recommended"])


def print_waiting(times: StepTimes) -> None:
    """How much of a step its batch takes."""
    print(f"\n{'batch of the recommended preset':<36}{'ms':>12}{'of a step':>12}")
    rows = {
        "making it, during other steps": times.drawing,
        "waiting for it": times.waiting,
        "copying it to the device": times.copying,
    }
    for name, spent in rows.items():
        print(f"{name:<36}{1e3 * spent:>12.2f}{spent / times.all:>12.2%}")


def print_updates(plain: list[float], fused: list[float], step: float) -> None:
    """How long the updates of a step take.

    Args:
        step: seconds of the whole step that the fused updates are part of.
    """
    print(f"\n{'update':<24}{'for-loop ms (baseline)':>24}{'fused ms':>12}{'ratio':>8}{'of a step':>12}")
    for name, before, now in zip(("AdamW", "average of the weights"), plain, fused, strict=True):
        print(f"{name:<24}{1e3 * before:>24.2f}{1e3 * now:>12.2f}{before / now:>8.2f}{now / step:>12.2%}")


def print_memory(device: torch.device) -> None:
    """The memory of training at the published width: counted, and measured if there is a GPU."""
    on_gpu = device.type == "cuda"
    print(f"Gigabytes at the peak of a step on a GPU: batch {MEMORY_BATCH}, {SLOTS} slots, width 2048. CUDA")
    print("itself takes half a gigabyte more. Ratio: the peak, relative to that of published")
    columns = ("weights", "gradients", "optimizer", "average", "activations", "peak", "ratio")
    heads = "".join(f"{column:>12}" for column in columns) + ("    measured" if on_gpu else "")
    print(f"{'preset':<14}{'layers':>7}{heads}")
    for layers in (4, 8):
        sizes = Sizes(num_layers=layers)
        counted = {name: counted_memory(PRESETS[name], sizes, 2048, SLOTS) for name in MEMORY_PRESETS}
        for name, memory in counted.items():
            parts = [*vars(memory).values(), memory.peak]
            cells = "".join(f"{part / GB:>12.2f}" for part in parts)
            line = f"{name:<14}{layers:>7}{cells}{memory.peak / counted['published'].peak:>12.2f}"
            if on_gpu:
                line += f"{measured_memory(PRESETS[name], sizes, 2048, SLOTS, device) / GB:>12.2f}"
            print(line)


def machine(device: torch.device) -> str:
    """What the times were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.system()}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", type=torch.device, default="cpu", help="default: %(default)s")
    parser.add_argument("--batch", type=int, help="samples per step (default: 64; 1 on a CPU, unless small)")
    parser.add_argument("--steps", type=int, help="timed steps (default: 20; 2 on a CPU, unless small)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch decides)")
    parser.add_argument("--small", action="store_true", help="the sizes of the creature models")
    options = parser.parse_args()
    slow = options.device.type == "cpu" and not options.small
    options.batch = options.batch or (1 if slow else 64)
    options.steps = options.steps or (2 if slow else 20)
    return options


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    scale = CREATURES if options.small else PUBLISHED_SCALE
    precision = "fp16 autocast" if options.device.type == "cuda" else "fp32"
    print(f"IP-Prior, {scale.sizes.num_layers} layers, {scale.sizes.hidden_dim} wide ({scale.name})")
    print(f"Batch {options.batch}, {SLOTS} slots, {options.steps} steps after {WARM_UP} to warm up; the "
          f"baseline in {precision}")
    print(machine(options.device), end="\n\n")
    torch.manual_seed(0)
    print_speed(scale, options.batch, options.steps, options.device)
    print()
    print_memory(options.device)


if __name__ == "__main__":
    main()
