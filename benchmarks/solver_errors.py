"""How far each solver is from the exact solution of the flow, by its number of evaluations.

Measured on the IP-Prior of the creature models, with guidance; 1000 midpoint steps count as exact. Prints a
table, and with --picture also draws the curves. Run in the folder of the pack:

    python -m benchmarks.solver_errors
"""
from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pit.demo.measure.suite import Laboratory
from pit.demo.measure.trials import draw_trials
from pit.demo.models.chain import CreatureChain
from pit.demo.models.reader import load_reader
from pit.flow.solvers import SCHEDULES, SOLVERS, evaluation_times, time_steps
from pit.piece_it_together.sample import concept_noise, sample_prior

CONCEPTS, PARTS, SEED, GUIDANCE = 16, 3, 7, 2.0
REFERENCE_STEPS = 1000
BUDGETS = (4, 6, 8, 10, 12, 16, 20, 25, 32, 50)
COLORS = ("#333333", "#d1495b", "#edae49", "#00798c", "#30638e", "#8f4cb3")
SIZE, BOX = (900, 520), (80, 40, 860, 460)


@dataclass(frozen=True)
class Domain:
    """A prior, conditions `[B, 16 P, D]`, noise `[B, 16, D]` and a guidance scale to sample it with."""

    chain: CreatureChain
    parts: Tensor
    noise: Tensor
    guidance: float

    def sample(self, solver: str, steps: int, schedule: str, **settings) -> Tensor:
        """Tokens `[B, 16, D]`."""
        return sample_prior(
            self.chain.prior, self.parts, empty_tokens=self.chain.empty, noise=self.noise, steps=steps,
            solver=solver, schedule=schedule, guidance_scale=self.guidance, **settings,
        )

    def in_type(self, dtype: torch.dtype) -> Domain:
        """The same, with a prior that computes in another type."""
        chain = copy.copy(self.chain)
        chain.prior = copy.deepcopy(chain.prior).to(dtype)
        return replace(self, chain=chain, parts=self.parts.to(dtype))

    def error(self, exact: Tensor, solver: str, steps: int, schedule: str, **settings) -> float:
        """The root mean square of the error, relative to that of the exact tokens."""
        found = self.sample(solver, steps, schedule, **settings)
        return ((found - exact).square().mean() / exact.square().mean()).sqrt().item()


def creature_domain(guidance: float) -> Domain:
    """The shipped creature prior, given three parts each of freely mixed creatures."""
    chain = CreatureChain()
    lab = Laboratory(chain, load_reader(), SEED)
    parts = lab.conditions(draw_trials(SEED, CONCEPTS, PARTS, 0.0))
    return Domain(chain, parts, concept_noise(SEED, CONCEPTS, parts.shape[-1]), guidance)


def steps_within(solver: str, evaluations: int) -> int:
    """The most steps that a solver can take with this many evaluations."""
    return max(
        n for n in range(1, evaluations + 1) if len(evaluation_times(solver, time_steps(n))) <= evaluations
    )


def measure(domain: Domain) -> Iterator[tuple[str, str, list[float]]]:
    """Solver, schedule, and the errors at all budgets."""
    exact = domain.sample("midpoint", REFERENCE_STEPS, "uniform")
    for solver in SOLVERS:
        for schedule in SCHEDULES:
            steps = [steps_within(solver, budget) for budget in BUDGETS]
            yield solver, schedule, [domain.error(exact, solver, n, schedule) for n in steps]


def picture(results: list[tuple[str, str, list[float]]]) -> Image.Image:
    """The curves on logarithmic axes: solid for even steps, dashed for the cosine schedule."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    values = [value for *_, errors in results for value in errors]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))

    def place(evaluations: float, error: float) -> tuple[float, float]:
        left, top, right, bottom = BOX
        across = math.log(evaluations / BUDGETS[0]) / math.log(BUDGETS[-1] / BUDGETS[0])
        up = math.log(error / low) / math.log(high / low)
        return left + (right - left) * across, bottom - (bottom - top) * up

    grid(draw, place, low, high)
    for solver, color in zip(SOLVERS, COLORS, strict=True):
        by_schedule = {schedule: errors for name, schedule, errors in results if name == solver}
        draw.line([place(*point) for point in zip(BUDGETS, by_schedule["uniform"], strict=True)], color, 3)
        dashed(draw, [place(*point) for point in zip(BUDGETS, by_schedule["cosine"], strict=True)], color)
    legend(draw)
    return image


def grid(draw: ImageDraw.ImageDraw, place, low: float, high: float) -> None:
    """Lines at every power of ten, and labels for them and for every budget."""
    error = low
    while error <= high * 1.01:  # the factors of ten add up rounding errors
        draw.line([place(BUDGETS[0], error), place(BUDGETS[-1], error)], "#d8d8d8")
        x, y = place(BUDGETS[0], error)
        draw.text((x - 8, y), f"{error:g}", "#333333", font(), anchor="rm")
        error *= 10
    for budget in BUDGETS:
        x, y = place(budget, low)
        draw.text((x, y + 8), str(budget), "#333333", font(), anchor="ma")
    draw.text((BOX[2], SIZE[1] - 12), "evaluations of the prior", "#333333", font(), anchor="rs")
    draw.text((BOX[0], 24), "relative error of the tokens", "#333333", font(), anchor="ls")


def dashed(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], color: str) -> None:
    """A dashed line through the points."""
    for (x, y), (x_next, y_next) in zip(points, points[1:], strict=False):
        pieces = max(1, int(math.hypot(x_next - x, y_next - y) / 12))
        for i in range(pieces):
            shares = (i / pieces, (i + 0.5) / pieces)
            draw.line([(x + a * (x_next - x), y + a * (y_next - y)) for a in shares], color, 2)


def legend(draw: ImageDraw.ImageDraw) -> None:
    """The names of the solvers in their colors, and what the kinds of lines mean."""
    for i, (solver, color) in enumerate(zip(SOLVERS, COLORS, strict=True)):
        draw.text((BOX[2] - 20, BOX[1] + 10 + 20 * i), solver, color, font(), anchor="ra")
    draw.text((BOX[2], 24), "solid: even steps, dashed: cosine schedule", "#333333", font(), anchor="rs")


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--picture", type=Path, help="draw the curves to this file")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="default: %(default)s")
    options = parser.parse_args()
    results = []
    print(f"Relative error of the tokens, guidance {options.guidance:g}, {CONCEPTS} concepts, by evaluations")
    print(f"{'solver':<10}{'schedule':<10}" + "".join(f"{budget:>9}" for budget in BUDGETS))
    for solver, schedule, errors in measure(creature_domain(options.guidance)):
        results.append((solver, schedule, errors))
        print(f"{solver:<10}{schedule:<10}" + "".join(f"{error:>9.4f}" for error in errors))
    if options.picture:
        picture(results).save(options.picture)


if __name__ == "__main__":
    main()
