"""An operator of pOps at its published size, random weights, against the published loop, at equal output.

The published code samples one pair at a time. In each of 25 steps it computes both branches of guidance with
all 81 tokens, 75 of them padding, through every layer, and keeps nothing from step to step. Here padding is
left out, and what follows from the condition and the times is computed once, for all pairs and both branches
in one batch. Ways of one precision take turns on the same weights, conditions and noise; bfloat16 comes after
float32, so that one copy of the weights (4.1 GB) is enough. Run in the folder of the pack:

    python -m benchmarks.pops
"""
from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pit.flow.precision import cpu_has_bf16
from pit.pops.embeddings import picture_condition
from pit.pops.prior import EXTRA_TOKENS, PriorTransformer
from pit.pops.sample import LARGEST, operator_noise, sample_operator, schedule

GUIDANCE, STEPS, PAIRS = 8.0, 25, 8
COMPARED = 2  # pairs whose results are compared: the published loop takes long for more
HIDDEN = -10000.0  # what the published code adds to attention that is not to be


def published_prediction(
    operator: PriorTransformer, x: Tensor, t: int, condition: Tensor, mask: Tensor
) -> Tensor:
    """The clean embedding `[B, E]` with all slots of the condition `[B, 77, E]` and a mask over them."""
    time_token = operator.time_embedding(torch.tensor([t], device=x.device), x.dtype)
    extra = torch.stack([
        operator.embedding_proj(torch.zeros_like(x)), time_token.expand(len(x), -1), operator.proj_in(x),
        operator.prd_embedding[:, 0].expand(len(x), -1),
    ], dim=1)
    tokens = torch.cat([operator.encoder_hidden_states_proj(condition), extra], dim=1)
    tokens = tokens + operator.positional_embedding
    later = torch.full((tokens.shape[1],) * 2, HIDDEN, dtype=x.dtype, device=x.device).triu(1)
    bias = functional.pad((1 - mask.to(x.dtype)) * HIDDEN, (0, EXTRA_TOKENS))
    bias = (later + bias[:, None])[:, None]
    for block in operator.transformer_blocks:
        tokens, _ = block(tokens, bias)
    return operator.proj_to_clip_embeddings(operator.norm_out(tokens)[:, -1])


def published_sampler(
    operator: PriorTransformer, condition: Tensor, noise: Tensor, step_noise: Tensor,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Raw embeddings `[1, E]` of one condition `[1, n, E]`, as the published pipeline computes them."""
    slots = functional.pad(condition, (0, 0, 0, operator.num_slots - condition.shape[1]))
    mask = torch.arange(operator.num_slots, device=condition.device) < condition.shape[1]
    both, mask = torch.cat([torch.zeros_like(slots), slots]), mask[None].expand(2, -1)
    plan, x = schedule(len(step_noise) + 1), noise
    for step, t in enumerate(plan.timesteps):
        given = x.to(condition.dtype).repeat(2, 1)
        negative, positive = published_prediction(operator, given, t, both, mask).float().chunk(2)
        clean = (negative + guidance * (positive - negative)).clamp(-LARGEST, LARGEST)
        x = plan.clean[step].item() * clean + plan.current[step].item() * x
        if step < len(step_noise):
            x = x + plan.noise[step].item() * step_noise[step].to(x)
    return operator.raw(x)


def one_by_one(operator: PriorTransformer, condition: Tensor, noise: Tensor, step_noise: Tensor) -> Tensor:
    """The published loop, which takes one pair at a time."""
    return torch.cat([
        published_sampler(operator, condition[i:i + 1], noise[i:i + 1], step_noise[:, i:i + 1])
        for i in range(len(condition))
    ])


def ours(operator: PriorTransformer, condition: Tensor, noise: Tensor, step_noise: Tensor) -> Tensor:
    return sample_operator(
        operator, condition, noise=noise, step_noise=step_noise, steps=len(step_noise) + 1,
        guidance_scale=GUIDANCE,
    )


@dataclass(frozen=True)
class Task:
    """Pairs of pictures and the noise for each; the operator is on the same device, in float32."""

    operator: PriorTransformer
    condition: Tensor
    noise: Tensor
    step_noise: Tensor

    @property
    def device(self) -> torch.device:
        return self.condition.device

    def run(self, call: Callable[..., Tensor], pairs: int) -> Tensor:
        """What a way gives for the first pairs, in the type that the operator has now."""
        condition = self.condition[:pairs].to(self.operator.proj_in.weight.dtype)
        return call(self.operator, condition, self.noise[:pairs], self.step_noise[:, :pairs])

    def seconds(self, call: Callable[..., Tensor], pairs: int) -> float:
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        wait()
        start = time.perf_counter()
        self.run(call, pairs)
        wait()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Way:
    """A row of the table: how many pairs are sampled, and by what."""

    name: str
    call: Callable[..., Tensor]
    pairs: int


@dataclass(frozen=True)
class Row:
    """What was found for a way; the difference is relative to the largest value of the published loop."""

    way: Way
    seconds: float
    difference: float

    @property
    def each(self) -> float:
        return self.seconds / self.way.pairs


BASELINE = Way("published loop, float32 (baseline)", one_by_one, 1)


def filled(operator: PriorTransformer) -> PriorTransformer:
    """Random weights through which signals keep their size."""
    for name, weight in operator.named_parameters():
        if name in ("clip_mean", "clip_std"):
            continue  # zero and one, as they are made
        if weight.ndim == 2:
            weight.normal_(std=weight.shape[1] ** -0.5)
        else:
            weight.normal_(std=0.1)
            weight.add_(float("norm" in name and name.endswith("weight")))
    return operator.eval().requires_grad_(False)


@torch.no_grad()
def new_task(device: torch.device, steps: int = STEPS, **sizes: int) -> Task:
    """An operator, by default of the published size, and as many pairs as a batch has."""
    torch.manual_seed(0)
    operator = filled(PriorTransformer(**sizes, device=device))
    width = operator.embedding_dim
    condition = picture_condition([torch.randn(PAIRS, width), torch.randn(PAIRS, width)])
    noise, step_noise = operator_noise(0, PAIRS, width, steps)
    return Task(operator, condition.to(device), noise.to(device), step_noise)


def measure(task: Task, ways: Sequence[Way], exact: Tensor, repeats: int) -> list[Row]:
    """Median seconds of each way, in turns after one run each, and how far its result is from `exact`."""
    differences = [difference(task.run(way.call, way.pairs), exact) for way in ways]
    times = [[task.seconds(way.call, way.pairs) for way in ways] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return [Row(*each) for each in zip(ways, medians, differences, strict=True)]


def difference(found: Tensor, exact: Tensor) -> float:
    """The largest, relative to the largest value; of the rows that both have."""
    count = min(len(found), len(exact))
    return ((found[:count] - exact[:count]).abs().max() / exact[:count].abs().max()).item()


def rows_of(task: Task, repeats: int) -> list[Row]:
    """All rows of a device, those of bfloat16 last; they are left out where it has none. Changes the task."""
    exact = task.run(one_by_one, COMPARED)
    found = measure(task, [BASELINE, *ways_in("float32")], exact, repeats)
    if task.device.type == "cuda" or cpu_has_bf16():
        for parameter in task.operator.parameters():
            parameter.data = parameter.data.bfloat16()
        found += measure(task, ways_in("bfloat16"), exact, repeats)
    return found


def ways_in(precision: str) -> list[Way]:
    return [Way(f"ours, {precision}", ours, 1), Way(f"ours, {precision}, batch of {PAIRS}", ours, PAIRS)]


def print_table(task: Task, repeats: int) -> None:
    """Seconds, those for a pair, the ratio to the published loop, and what a batch costs in single pairs."""
    rows = rows_of(task, repeats)
    print(f"{task.device.type:<38}{'seconds':>9}{'a pair':>9}{'ratio':>8}", end="")
    print(f"{'in singles':>12}{'difference':>12}")
    single = rows[0]
    for row in rows:
        single = row if row.way.pairs == 1 else single
        ratio, singles = rows[0].each / row.each, row.seconds / single.seconds
        print(
            f"{row.way.name:<38}{row.seconds:>9.3f}{row.each:>9.3f}{ratio:>8.2f}{singles:>12.2f}"
            f"{row.difference:>12.1e}", flush=True,
        )
    if not any("bfloat16" in row.way.name for row in rows):
        print("bfloat16: not measured, this processor has none")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"pOps, two pictures, guidance {GUIDANCE:g}, {STEPS} steps, median of {options.repeats} in turns")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print_table(new_task(torch.device("cpu")), options.repeats)
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        print_table(new_task(torch.device("cuda")), options.repeats)
    else:
        print("GPU: not measured, none is here")


if __name__ == "__main__":
    main()
