"""All measures in order, and their results."""
from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..models.reader import Reading
from .baselines import rivals
from .estimates import Estimate, mean, share
from .scores import is_whole, joined, kept
from .suite import (
    DIVERSE_SEEDS,
    RECOMMENDED,
    WORDED_SCENES,
    Laboratory,
    ceilings,
    distances,
    diversity,
    kept_and_floor,
    reader_accuracy,
    scenes_as_asked,
    seconds_per_stage,
)
from .trials import COHERENCE, FREE, all_targets, draw_trials

PART_COUNTS = (1, 2, 3, 5)
SCENE_WEIGHTS = (1.0, 0.7, 0.4)


@dataclass(frozen=True)
class Plan:
    """How many samples a run uses.

    Attributes:
        fresh: freshly drawn creatures on which the reader is tested.
        trials: creatures for each setting.
        sets: sets of parts, each completed with 32 seeds.
        known: training creatures among which the nearest one is searched.
        compared: numbers of given parts with which the prior is compared to other methods.
    """

    fresh: int
    trials: int
    sets: int
    known: int
    compared: tuple[int, ...]

    @property
    def pictures(self) -> int:
        """How many pictures are rendered in all."""
        settings = len(COHERENCE) * (len(PART_COUNTS) + 1) + len(SCENE_WEIGHTS)
        compared = len(rivals(1)) * len(self.compared)
        return self.trials * (settings + compared) + self.sets * DIVERSE_SEEDS


# From 128 creatures, shares are known to about 2 points; 30 are just enough for an interval (`FEW`).
FULL = Plan(fresh=2000, trials=128, sets=32, known=8000, compared=(2, 5))
QUICK = Plan(fresh=400, trials=30, sets=3, known=800, compared=(2,))


@dataclass(frozen=True)
class Comparison:
    """One way from parts to tokens, measured.

    Attributes:
        both: share of the attributes found; pictures that show no complete creature count as 0.
        lead: by how much the recommended prior is ahead in `both`; None for that prior itself.
    """

    method: str
    parts: int
    kept: Estimate
    whole: Estimate
    both: Estimate
    lead: Estimate | None


@dataclass
class Findings:
    """The results of a run.

    Attributes:
        measures: by the names under which the command writes them.
        reader: accuracy for each attribute, the scene, and telling complete creatures from flawed ones.
        stages: what is left after each stage at best, at free and natural coherence.
        floors: what chance would find, under the name of the measure.
        scenes_kept: attributes kept at each adapter weight.
        distances: between rendered and true creatures, at free and natural coherence.
        comparisons: the prior and every other method, for each number of parts.
        seconds: for each stage, for eight concepts.
    """

    measures: dict[str, Estimate] = field(default_factory=dict)
    reader: dict[str, Estimate] = field(default_factory=dict)
    stages: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    floors: dict[str, Estimate] = field(default_factory=dict)
    scenes_kept: dict[str, Estimate] = field(default_factory=dict)
    distances: dict[str, dict[str, float]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def run_measures(lab: Laboratory, plan: Plan) -> Findings:
    """Take every measure."""
    findings = Findings()
    measure_reader(lab, plan, findings)
    found = {name: measure_kept(lab, plan, findings, name) for name in COHERENCE}
    measure_whole(findings, {name: joined(list(readings.values())) for name, readings in found.items()})
    findings.measures["diverse"] = diversity(lab, plan.sets, RECOMMENDED)
    measure_scenes(lab, plan, findings)
    for parts in plan.compared:
        compare_methods(lab, plan, findings, parts, found["free"][parts])
    findings.seconds = seconds_per_stage(lab, RECOMMENDED)
    return findings


def measure_reader(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """How far the reader, on which all other measures rely, can be trusted."""
    findings.measures["reader_accuracy"], findings.reader = reader_accuracy(lab, plan.fresh)


def measure_kept(lab: Laboratory, plan: Plan, findings: Findings, name: str) -> dict[int, Reading]:
    """The ceiling and the parts kept at one coherence; returns the readings for each number of parts."""
    coherence = COHERENCE[name]
    creatures = [trial.creature for trial in draw_trials(lab.seed, plan.trials, 1, coherence)]
    findings.stages[name], ceiling = ceilings(lab, creatures)
    findings.measures["ceiling" if coherence == FREE else f"ceiling_{name}"] = findings.stages[name]["drawn"]
    readings = {}
    for parts in PART_COUNTS:
        trials = draw_trials(lab.seed, plan.trials, parts, coherence)
        tokens = lab.sample(lab.conditions(trials), RECOMMENDED)
        readings[parts] = lab.render(tokens, [trial.caption for trial in trials])
        key = f"kept_{parts}_{name}"
        findings.measures[key], findings.floors[key] = kept_and_floor(readings[parts], trials)
    findings.distances[name] = distances(lab, joined(list(readings.values())), ceiling, coherence)
    return readings


def measure_whole(findings: Findings, readings: dict[str, Reading]) -> None:
    """The share of complete creatures among all that were rendered, and at each coherence."""
    findings.measures["whole"] = share(is_whole(joined(list(readings.values()))))
    for name, reading in readings.items():
        findings.measures[f"whole_{name}"] = share(is_whole(reading))


def measure_scenes(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """Scenes as asked for, and attributes kept, at each adapter weight."""
    trials = draw_trials(lab.seed, plan.trials, 2, FREE, WORDED_SCENES, purpose="scenes")
    tokens = lab.sample(lab.conditions(trials), RECOMMENDED)
    for weight in SCENE_WEIGHTS:
        asked, still_kept = scenes_as_asked(lab, trials, tokens, weight)
        findings.measures[f"scene_{weight}"], findings.scenes_kept[f"scene_{weight}"] = asked, still_kept


def compare_methods(lab: Laboratory, plan: Plan, findings: Findings, parts: int, prior: Reading) -> None:
    """The recommended prior, whose reading is given, and every other way from the same parts to tokens."""
    trials = draw_trials(lab.seed, plan.trials, parts, FREE)
    targets, captions = all_targets(trials), [trial.caption for trial in trials]
    # Compared creature by creature: paired differences have narrower intervals than those of two means.
    ours = kept(prior, targets) * is_whole(prior)
    findings.comparisons.append(compared("prior, recommended", parts, prior, targets, None))
    for name, method in rivals(plan.known).items():
        reading = lab.render(method(lab, trials), captions)
        findings.comparisons.append(compared(name, parts, reading, targets, ours))


def compared(
    name: str, parts: int, reading: Reading, targets: Tensor, ours: Tensor | None
) -> Comparison:
    """One row of the comparison; `ours` is what the prior achieved in each picture."""
    shares, whole = kept(reading, targets), is_whole(reading)
    lead = None if ours is None else mean(ours - shares * whole)
    return Comparison(name, parts, mean(shares), share(whole), mean(shares * whole), lead)
