"""How far each solver is from the exact solution of the flow, by its number of evaluations.

Measured on the IP-Prior of the creature models, with guidance; 1000 midpoint steps count as exact. Prints a
table, and with --picture also draws the curves. Run in the folder of the pack:

    python -m benchmarks.solver_errors
"""
from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pit import charts
from pit.charts import Curve
from pit.demo.measure.suite import Laboratory
from pit.demo.measure.trials import draw_trials
from pit.demo.models.chain import CreatureChain
from pit.demo.models.reader import load_reader
from pit.flow.solvers import SCHEDULES, SOLVERS, evaluation_times, time_steps
from pit.piece_it_together.sample import concept_noise, sample_prior

CONCEPTS, PARTS, SEED, GUIDANCE = 16, 3, 7, 2.0
REFERENCE_STEPS = 1000
BUDGETS = (4, 6, 8, 10, 12, 16, 20, 25, 32, 50)


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
    """The curves with even steps, and dashed those with the cosine schedule."""
    curves = [
        Curve(solver, list(zip(BUDGETS, errors, strict=True)), dashed=schedule != "uniform")
        for solver, schedule, errors in results if schedule in ("uniform", "cosine")
    ]
    return charts.errors(
        "solid: even steps, dashed: cosine schedule", curves, "evaluations of the prior",
        "error of the tokens, relative",
    )


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
