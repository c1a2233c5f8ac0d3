"""How long it takes to sample an IP-Prior of the published size, and what each improvement gains.

The baseline is the published sampler: fp32, 25 Euler steps, two calls at each (one with the parts, then one
with empty tokens), every token through every layer, and nothing kept from step to step. All samplers take
turns on the same weights, noise and parts, and each has one improvement more than the one before it. Their
errors are measured on the creature prior (`benchmarks.solver_errors`), since random weights have no concepts
to miss. Run in the folder of the pack:

    python -m benchmarks.prior_sampling
"""
from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.solver_errors import REFERENCE_STEPS, creature_domain
from pit.flow.solvers import evaluation_times, time_steps
from pit.ip_adapter.resampler import TOKENS_PER_PICTURE
from pit.piece_it_together.prior import IPPrior, rope_table
from pit.piece_it_together.sample import concept_noise, sample_prior

WIDTH, HEADS, SLOTS = 2048, 32, 4
GUIDANCE, STEPS = 2.0, 25
FAST = {"solver": "unipc", "schedule": "cosine", "steps": 12}
GEMM_SIZE = 2048


@dataclass(frozen=True)
class Sampler:
    """A way to sample: the function, the type it computes in, and its settings for `sample_prior`."""

    name: str
    call: Callable[..., Tensor]
    dtype: torch.dtype
    settings: dict


@dataclass(frozen=True)
class Task:
    """What is sampled: priors by type, and parts, empty tokens and noise in fp32."""

    priors: dict[torch.dtype, IPPrior]
    parts: Tensor
    empty: Tensor
    noise: Tensor

    def time(self, sampler: Sampler) -> float:
        """The seconds of one run."""
        prior, parts = self.priors[sampler.dtype], self.parts.to(sampler.dtype)
        wait = torch.cuda.synchronize if parts.is_cuda else lambda: None
        empty = self.empty.to(sampler.dtype)
        wait()
        start = time.perf_counter()
        sampler.call(prior, parts, empty_tokens=empty, noise=self.noise, **sampler.settings)
        wait()
        return time.perf_counter() - start


def published_velocity(prior: IPPrior, x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
    """The velocity with every token passing through every layer."""
    tokens = prior.x_embedder(torch.cat([x, parts], dim=1))
    rope = rope_table(tokens.shape[1], prior.head_dim, tokens.device)
    *modulations, last = prior.modulations(t, tokens.dtype)
    for layer, modulation in zip(prior.layers, modulations, strict=True):
        tokens = layer(tokens, modulation, rope, None, tokens.shape[1])
    return prior.final_layer(tokens, last)[:, :x.shape[1]]


def published_sampler(prior: IPPrior, parts: Tensor, *, empty_tokens: Tensor, noise: Tensor) -> Tensor:
    """Two calls at each step, one after the other."""
    nothing = empty_tokens.repeat(len(parts), parts.shape[1] // TOKENS_PER_PICTURE, 1)
    x = noise
    for step in range(STEPS, 0, -1):
        t = torch.full((len(x),), step / STEPS, device=x.device)
        given, empty = published_velocity(prior, x, t, parts), published_velocity(prior, x, t, nothing)
        x = x - (empty + GUIDANCE * (given - empty)) / STEPS
    return x


def batched_sampler(prior: IPPrior, parts: Tensor, **inputs) -> Tensor:
    """One call at each step, of the same network."""
    def velocity(x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        return published_velocity(prior, x, t, given)

    return sample_prior(velocity, parts, guidance_scale=GUIDANCE, steps=STEPS, **inputs)


SAMPLERS = (
    Sampler("published: two calls (baseline)", published_sampler, torch.float32, {}),
    Sampler("one batched call", batched_sampler, torch.float32, {}),
    Sampler("work shared by steps done once", sample_prior, torch.float32, {"steps": STEPS}),
    Sampler("also in bfloat16", sample_prior, torch.bfloat16, {"steps": STEPS}),
    Sampler(f"fast: {FAST['solver']}, {FAST['steps']} steps", sample_prior, torch.bfloat16, FAST),
)


def new_task(layers: int, batch: int, device: torch.device) -> Task:
    """Random weights and inputs of the published width."""
    torch.manual_seed(0)
    prior = IPPrior(WIDTH, WIDTH, layers, HEADS, device=device).eval()
    priors = {torch.float32: prior, torch.bfloat16: copy.deepcopy(prior).bfloat16()}
    parts = torch.randn(batch, TOKENS_PER_PICTURE * SLOTS, WIDTH, device=device)
    empty = torch.randn(1, TOKENS_PER_PICTURE, WIDTH, device=device)
    return Task(priors, parts, empty, concept_noise(0, batch, WIDTH).to(device))


def measure(task: Task, repeats: int) -> list[float]:
    """The median seconds of each sampler; they take turns, after one run each to warm up."""
    # In turns, so that a slow moment of the machine does not hit only one of them.
    times = [[task.time(sampler) for sampler in SAMPLERS] for _ in range(1 + repeats)]
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def errors() -> list[float]:
    """The error of each sampler on the creature prior, against the exact solution in fp32."""
    domain = creature_domain(GUIDANCE)
    exact = domain.sample("midpoint", REFERENCE_STEPS, "uniform")
    found = []
    for sampler in SAMPLERS:
        settings = {"solver": "euler", "schedule": "uniform", "steps": STEPS} | sampler.settings
        found.append(domain.in_type(sampler.dtype).error(exact, **settings))
    return found


def floors(layers: int, batch: int, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """The fewest seconds in which `STEPS` guided Euler steps could do their products, and read the weights.

    Derived from the speed of a large product and of a copy on this device.
    """
    # The weights of a block: four projections of the attention, three of a SwiGLU of 5632.
    block = 4 * WIDTH**2 + 3 * WIDTH * 5632
    # Both branches of guidance; in the last block only the tokens of the concept are worked out.
    tokens = 2 * batch * TOKENS_PER_PICTURE * ((layers - 1) * (1 + SLOTS) + 1)
    flop = 2 * STEPS * (tokens * block + 2 * 2 * batch * TOKENS_PER_PICTURE * WIDTH**2)
    a = torch.randn(GEMM_SIZE, GEMM_SIZE, device=device, dtype=dtype)
    weights = torch.empty(layers * block, device=device, dtype=dtype)
    product, copied = best_time(lambda: a @ a, device), best_time(lambda: weights.clone(), device)
    # A copy reads and writes, so reading alone takes half of its time.
    return flop * product / (2 * GEMM_SIZE**3), STEPS * copied / 2


def best_time(call: Callable[[], Tensor], device: torch.device) -> float:
    """The seconds of the fastest of five calls."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(5):
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def machine(device: torch.device) -> str:
    """What the times were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.system()}"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each sampler (default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 8], help="default: 4 8")
    parser.add_argument("--batches", type=int, nargs="+", help="concepts at once (default: 1; GPU: 1 8 64)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch decides)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"IP-Prior, {WIDTH} wide, {HEADS} heads, {SLOTS} slots, guidance {GUIDANCE:g}, {STEPS} Euler steps")
    print(f"Median of {options.repeats} alternating runs; {machine(options.device)}")
    found = errors()
    for layers in options.layers:
        for batch in options.batches or ([1, 8, 64] if options.device.type == "cuda" else [1]):
            print_table(layers, batch, options.device, options.repeats, found)


def print_table(layers: int, batch: int, device: torch.device, repeats: int, found: list[float]) -> None:
    """Evaluations, seconds, gain over the baseline and error of each sampler, and the floors."""
    print(f"\n{f'{layers} layers, {batch} at once':<36}", end="")
    print(f"{'evaluations':>12}{'seconds':>10}{'ratio':>8}{'error':>9}")
    seconds = measure(new_task(layers, batch, device), repeats)
    for sampler, spent, error in zip(SAMPLERS, seconds, found, strict=True):
        solver, steps = sampler.settings.get("solver", "euler"), sampler.settings.get("steps", STEPS)
        count = len(evaluation_times(solver, time_steps(steps)))
        print(f"{sampler.name:<36}{count:>12}{spent:>10.3f}{seconds[0] / spent:>8.2f}{error:>9.4f}")
    for dtype in (torch.float32, torch.bfloat16):
        compute, memory = floors(layers, batch, device, dtype)
        name = str(dtype).removeprefix("torch.")
        print(f"floor in {name}: products {compute:.3f} s, weights {memory:.3f} s")


if __name__ == "__main__":
    main()
