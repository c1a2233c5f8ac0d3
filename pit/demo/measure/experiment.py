"""All measures in order."""
from __future__ import annotations

from collections.abc import Callable, Collection

from ..drawing.creature import SCENES
from ..models.reader import Reading
from ..training.data import ALONE, KINDS, WITH_THINGS
from . import GROUPS
from .autoencoder import GROUNDS, fidelity, ground_shift, white_distance
from .catalog import DRAWN, GROUND, PSNR, key
from .comparison import compare_methods
from .embedding import accuracy, drawn_from_embeddings, over_the_ceiling, read_off
from .estimates import share
from .findings import Findings
from .plan import PART_COUNTS, SCENE_WEIGHTS, Plan
from .reader import reader_accuracy
from .scores import is_whole, joined
from .speed import drawings_a_second, seconds_per_stage
from .suite import (
    RECOMMENDED,
    Laboratory,
    ceilings,
    completed,
    distances,
    diversity,
    encoded,
    kept_and_floor,
    scenes_as_asked,
    shares_by_attribute,
    whites_from_tokens,
)
from .trials import COHERENCE, FREE, draw_trials
from .words import measure_captions


def run_measures(
    lab: Laboratory, plan: Plan, groups: Collection[str] = GROUPS,
    on_group: Callable[[str], None] = lambda name: None,
) -> Findings:
    """Take the measures of these groups, of which `on_group` is told one by one."""
    findings = Findings()
    for name in GROUPS:
        if name in groups:
            on_group(name)
            MEASURES[name](lab, plan, findings)
    return findings


def measure_reader(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """How far the reader can be trusted."""
    found = reader_accuracy(lab, plan.fresh)
    findings.measures |= {"reader_accuracy": found.average, "reader_maps": found.maps}
    findings.attributes["reader"] = found.shares


def measure_autoencoder(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """What the autoencoder leaves of pixels, attributes, whites and grounds."""
    found = fidelity(lab, plan.decoded)
    findings.attributes["autoencoder"] = found.shares
    findings.measures |= {key(PSNR, kind): estimate for kind, estimate in found.decibels.items()}
    findings.measures |= {
        "autoencoder_attributes": found.average, "autoencoder_white": white_distance(lab, plan.decoded),
    }
    for ground in GROUNDS:
        findings.measures[key(GROUND, ground)] = ground_shift(lab, ground, plan.grounds)


def measure_embedding(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """What the pooled embedding holds, and what is drawn from it."""
    known = encoded(lab, plan.trials, FREE)
    average, findings.attributes["embedding"] = accuracy(*read_off(lab, plan.fitted, plan.tested, ALONE))
    beside, _ = accuracy(*read_off(lab, plan.fitted, plan.tested, WITH_THINGS))
    reading, white = drawn_from_embeddings(lab, known)
    findings.measures |= {
        "embedding_attributes": average, "embedding_attributes_with_things": beside,
        "embedding_kept": over_the_ceiling(lab, reading, known),
        "embedding_whole": share(is_whole(reading)), "embedding_white": white,
    }


def measure_kept(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """What is kept of true tokens and of given parts, and whether the creatures are complete."""
    measure_free_ceiling(lab, plan, findings)
    readings = {name: kept_at(lab, plan, findings, name) for name in COHERENCE}
    findings.measures["whole"] = share(is_whole(joined(list(readings.values()))))
    for name, reading in readings.items():
        findings.measures[f"whole_{name}"] = share(is_whole(reading))


def measure_free_ceiling(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """More about free mixtures that are rendered from their true tokens."""
    known = encoded(lab, plan.trials, FREE)
    shares = findings.attributes["tokens"] = shares_by_attribute(known.rendered, known.targets)
    findings.measures |= {
        "ear_color": shares["ears_color"], "tokens_whole": share(is_whole(known.rendered)),
        "tokens_white": whites_from_tokens(lab, known),
    }


def kept_at(lab: Laboratory, plan: Plan, findings: Findings, name: str) -> Reading:
    """The ceiling and the parts kept at one coherence; returns the readings for all numbers of parts."""
    coherence = COHERENCE[name]
    known = encoded(lab, plan.trials, coherence)
    findings.stages[name] = ceilings(lab, known)
    findings.measures["ceiling" if coherence == FREE else f"ceiling_{name}"] = findings.stages[name]["drawn"]
    readings = []
    for parts in PART_COUNTS:
        trials, reading = completed(lab, plan.trials, parts, coherence)
        measure = f"kept_{parts}_{name}"
        findings.measures[measure], findings.floors[measure] = kept_and_floor(reading, trials)
        readings.append(reading)
    together = joined(readings)
    findings.distances[name] = distances(lab, together, known.rendered, coherence)
    return together


def measure_diversity(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """How varied is what was not given."""
    findings.measures["diverse"] = diversity(lab, plan.sets, RECOMMENDED)


def measure_scenes(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """Scenes as asked for, white among them, and attributes kept, at each adapter weight."""
    trials = draw_trials(lab.seed, plan.trials, 2, FREE, SCENES, purpose="scenes")
    tokens = lab.sample(lab.conditions(trials), RECOMMENDED)
    for weight in SCENE_WEIGHTS:
        asked, still_kept = scenes_as_asked(lab, trials, tokens, weight)
        findings.measures[f"scene_{weight}"], findings.scenes_kept[f"scene_{weight}"] = asked, still_kept


def measure_methods(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """Whether the prior beats other ways from parts to tokens."""
    for parts in plan.compared:
        findings.comparisons += compare_methods(lab, plan.trials, plan.known, parts)


def measure_words(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """What the base of SD 1.5's structure draws from captions."""
    measures, findings.attributes["words"] = measure_captions(lab, plan.trials)
    findings.measures |= measures


def measure_speed(lab: Laboratory, plan: Plan, findings: Findings) -> None:
    """How long models and drawings take."""
    findings.seconds = seconds_per_stage(lab, RECOMMENDED)
    for kind in KINDS:
        findings.measures[key(DRAWN, kind)] = drawings_a_second(kind, lab.seed)


MEASURES: dict[str, Callable[[Laboratory, Plan, Findings], None]] = {
    "reader": measure_reader, "autoencoder": measure_autoencoder, "embedding": measure_embedding,
    "kept": measure_kept, "diverse": measure_diversity, "scenes": measure_scenes, "methods": measure_methods,
    "words": measure_words, "speed": measure_speed,
}
