"""Time of sampling an IP-Prior of the published size: guidance in one batched call against two calls in turn.

The baseline is the published sampler: at every step it calls the network with the parts, then with empty
tokens. Both take turns on the same network, noise and steps, so that the table shows the batching and nothing
else. Run in the folder of the pack:

    python -m benchmarks.prior_sampling
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pit.flow import concept_noise, sample_prior
from pit.prior import IPPrior

WIDTH, LAYERS, HEADS, SLOTS, TOKENS = 2048, 4, 32, 4, 16
GUIDANCE = 2.0


def sample_sequentially(
    prior: IPPrior, parts: Tensor, empty_tokens: Tensor, noise: Tensor, steps: int
) -> Tensor:
    """The published sampler, with two passes a step."""
    nothing = empty_tokens.repeat(parts.shape[0], parts.shape[1] // empty_tokens.shape[1], 1)
    x = noise
    for step in range(steps, 0, -1):
        t = torch.full((x.shape[0],), step / steps, device=x.device)
        given, empty = prior(x, t, parts), prior(x, t, nothing)
        x = x - (empty + GUIDANCE * (given - empty)) / steps
    return x


def sample_batched(prior: IPPrior, parts: Tensor, empty_tokens: Tensor, noise: Tensor, steps: int) -> Tensor:
    return sample_prior(
        prior, parts, empty_tokens=empty_tokens, noise=noise, steps=steps, guidance_scale=GUIDANCE
    )


def timed(sample: Callable[..., Tensor], device: torch.device, *inputs) -> tuple[float, Tensor]:
    """Seconds of a call, and its result."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    tokens = sample(*inputs)
    wait()
    return time.perf_counter() - start, tokens


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.system()}"


@torch.inference_mode()
def measure(device: torch.device, steps: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each run; the samplers take turns, after one step each to warm up."""
    torch.manual_seed(0)
    prior = IPPrior(WIDTH, WIDTH, LAYERS, HEADS, device=device).eval()
    parts = torch.randn(1, TOKENS * SLOTS, WIDTH, device=device)
    empty_tokens = torch.randn(1, TOKENS, WIDTH, device=device)
    noise = concept_noise(0, 1, WIDTH).to(device)
    samplers = {"sequential": sample_sequentially, "batched": sample_batched}
    times, results = {name: [] for name in samplers}, {}
    for sample in samplers.values():
        sample(prior, parts, empty_tokens, noise, 1)
    for _ in range(repeats):
        for name, sample in samplers.items():
            spent, results[name] = timed(sample, device, prior, parts, empty_tokens, noise, steps)
            times[name].append(spent)
    torch.testing.assert_close(results["batched"], results["sequential"], rtol=1e-3, atol=1e-3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=25, help="Euler steps (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each sampler (default: %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch decides)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    times = measure(options.device, options.steps, options.repeats)
    print(f"IP-Prior, {LAYERS} layers, {WIDTH} wide, {HEADS} heads, float32, {SLOTS} slots, batch 1")
    print(f"{options.steps} Euler steps, guidance {GUIDANCE}, median of {options.repeats} alternating runs")
    print(machine(options.device), end="\n\n")
    print(f"{'guidance':<24}{'seconds':>10}{'fastest':>10}{'ratio':>8}")
    baseline = statistics.median(times["sequential"])
    for name, label in (("sequential", "two calls (baseline)"), ("batched", "one batched call")):
        median = statistics.median(times[name])
        print(f"{label:<24}{median:>10.2f}{min(times[name]):>10.2f}{median / baseline:>8.2f}")


if __name__ == "__main__":
    main()
