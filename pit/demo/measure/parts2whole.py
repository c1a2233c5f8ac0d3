"""What the creatures' Parts2Whole keeps of references, masks and poses, beside other ways to the parts."""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...images import contact_sheet
from ...parts2whole.parts import AS_PUBLISHED, AS_TRAINED
from ..drawing.creature import SCENES, UNSEEN
from ..drawing.mixture import reshaped
from ..models.operators import CreatureOperators
from ..models.reader import MAP_SIZE, Reading
from ..models.sizes import PICTURE_SIZE
from ..models.whole_pictures import RECOMMENDED, CreatureWhole, WholeSettings
from .estimates import Estimate, mean, mean_share, percent, ratio, share
from .markdown import markdown, reached
from .pictures import drawn, drawn_maps
from .plan import Plan
from .report import as_images
from .scores import NAMES, is_found, is_whole, kept
from .suite import RECOMMENDED as RECOMMENDED_PRIOR
from .suite import Laboratory
from .trials import all_targets
from .whole_trials import WholeTrial, draw_whole_trials, given_targets, masked_targets

PART_COUNTS = (3, 5)
SHEET_SEEDS = 8
LABELS = {
    "kept": "attributes of the given parts kept",
    "posed": "label maps read back, intersection over union over the autoencoder's",
    "whole": "complete creatures",
    "leaked": "colors and patterns of what the masks leave out, over chance",
    "scene": "scene as in the prompt",
}
# The least, but of what leaks the most; of parts kept, by their number.
BARS = {"posed": 0.90, "whole": 0.95, "leaked": 0.05}
KEPT_BARS = {3: 0.85, 5: 0.80}
PRIOR, COMPOSE = WITHOUT_POSE = "IP-Prior, no pose", "pOps Compose, no pose"
WAYS = {
    AS_TRAINED: RECOMMENDED,
    AS_PUBLISHED: replace(RECOMMENDED, wiring=AS_PUBLISHED),
    "image tokens alone": replace(RECOMMENDED, references=False),
    "references alone": replace(RECOMMENDED, tokens=False),
    # A label map shows the shapes of the parts that are given, too: this is what it tells by itself.
    "pose alone": replace(RECOMMENDED, references=False, tokens=False),
}
# Where it shows other shapes in their places, as when it comes from another creature.
OTHER_POSE = "as trained, other shapes in the pose"
LOOKS = torch.tensor([name == "pattern" or name.endswith("_color") for name in NAMES])
Measures = dict[str, Estimate]
"""What was measured of one way, by the keys of `LABELS`."""


@dataclass
class WholeFindings:
    """What a run has found, by the number of parts: the measures of each way, by its name."""

    ways: dict[int, dict[str, Measures]] = field(default_factory=dict)


def parts2whole_tables(lab: Laboratory, plan: Plan) -> str:
    """All tables, in Markdown; errors as in `CreatureWhole` and `CreatureOperators`."""
    return whole_tables(measure_wholes(lab, CreatureWhole(), plan.trials))


def parts2whole_pictures(plan: Plan) -> int:
    """How many pictures are rendered in all."""
    return plan.trials * len(PART_COUNTS) * (len(WAYS) + 1 + len(WITHOUT_POSE))


def measure_wholes(lab: Laboratory, whole: CreatureWhole, count: int) -> WholeFindings:
    """Take all measures on `count` unseen mixtures for each number of parts."""
    findings = WholeFindings()
    for parts in PART_COUNTS:
        trials = draw_whole_trials(lab.seed, count, parts, SCENES)
        ceiling = overlaps(trials, through_autoencoder(lab, trials))
        requests = [trial.request() for trial in trials]
        ways = findings.ways[parts] = {}
        for name, settings in WAYS.items():
            pictures = whole.draw(requests, lab.seed, settings, on_batch=lab.on_pictures)
            ways[name] = measured(trials, lab.reader.read(pictures), ceiling)
        ways[OTHER_POSE] = in_other_poses(lab, whole, trials)
        for name, reading in without_pose(lab, trials).items():
            ways[name] = of_parts_alone(trials, reading)
    return findings


def measured(trials: list[WholeTrial], reading: Reading, ceiling: Tensor) -> Measures:
    """The measures of pictures that were made for these trials.

    Args:
        ceiling: `overlaps` of the true pictures behind the autoencoder.
    """
    return of_parts(trials, reading, given_targets(trials)) | {
        "posed": ratio(overlaps(trials, reading), ceiling), "leaked": mean(leaked(trials, reading)),
    }


def in_other_poses(lab: Laboratory, whole: CreatureWhole, trials: list[WholeTrial]) -> Measures:
    """The measures of what is drawn by label maps that show other shapes in place of the given parts."""
    rng = random.Random(f"other poses/{lab.seed}")
    requests = [trial.request(reshaped(trial.target, trial.sources, rng)) for trial in trials]
    reading = lab.reader.read(whole.draw(requests, lab.seed, WAYS[AS_TRAINED], on_batch=lab.on_pictures))
    return of_parts(trials, reading, given_targets(trials)) | {"leaked": mean(leaked(trials, reading))}


def of_parts_alone(trials: list[WholeTrial], reading: Reading) -> Measures:
    """The measures of pictures that were made of pictures of the same parts, in no pose."""
    return of_parts(trials, reading, all_targets([trial.parts for trial in trials]))


def of_parts(trials: list[WholeTrial], reading: Reading, targets: Tensor) -> Measures:
    """The measures that need no pose; `targets [N, A]` are the attributes of the given parts."""
    asked = torch.tensor([SCENES.index(trial.scene) for trial in trials])
    return {
        "kept": mean_share(kept(reading, targets)), "whole": share(is_whole(reading)),
        "scene": share(reading.scenes == asked),
    }


def through_autoencoder(lab: Laboratory, trials: list[WholeTrial]) -> Reading:
    """What is read of the true pictures behind the autoencoder."""
    pictures = list(drawn(trial.composition for trial in trials))
    return lab.reader.read(lab.chain.reconstruct(pictures))


def overlaps(trials: list[WholeTrial], reading: Reading) -> Tensor:
    """Mean intersection over union of the parts in the label maps, for each picture `[N]`.

    Of those parts that the picture shows or should show; the ground does not count.
    """
    true = drawn_maps((trial.composition for trial in trials), MAP_SIZE)
    return torch.tensor([overlap(*pair) for pair in zip(reading.maps.numpy(), true.numpy(), strict=True)])


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """The same for the maps of one picture, `[S, S]` each."""
    there = [label for label in np.union1d(found, true) if label]
    both = (((found == label) & (true == label)).sum() for label in there)
    either = (((found == label) | (true == label)).sum() for label in there)
    return float(np.mean([above / below for above, below in zip(both, either, strict=True)]))


def leaked(trials: list[WholeTrial], reading: Reading) -> Tensor:
    """By how much more of what the masks leave out appears than by chance, for each picture `[N]`.

    That is the share of the colors and patterns of parts that are not given which any of the references
    has; shapes are those of the pose. Chance are the references of another picture.
    """
    return borrowed(trials, trials, reading) - borrowed(trials, [trials[-1], *trials[:-1]], reading)


def borrowed(trials: list[WholeTrial], others: list[WholeTrial], reading: Reading) -> Tensor:
    """The share of what is not given in `trials` and shown that any reference of `others` has, `[N]`."""
    targets = torch.stack([
        masked_targets(trials, others, number) for number in range(len(trials[0].sources))
    ]).masked_fill(~LOOKS, UNSEEN)
    found = torch.stack([is_found(reading, each) for each in targets]).any(dim=0)
    wanted = (targets != UNSEEN).any(dim=0)
    return found.sum(dim=1) / wanted.sum(dim=1).clamp(min=1)


def without_pose(lab: Laboratory, trials: list[WholeTrial]) -> dict[str, Reading]:
    """What the IP-Prior and pOps Compose make of pictures of the same parts."""
    alone = [trial.parts for trial in trials]
    captions = [trial.caption for trial in alone]
    tokens = lab.sample(lab.conditions(alone), RECOMMENDED_PRIOR)
    embeddings = CreatureOperators().compose(
        [lab.chain.embed(trial.part_pictures()) for trial in alone], lab.seed
    )
    pictures = lab.chain.render_embeddings(embeddings, captions, lab.seed, on_batch=lab.on_pictures)
    return {PRIOR: lab.render(tokens, captions), COMPOSE: lab.reader.read(pictures)}


def whole_tables(findings: WholeFindings) -> str:
    """All that was measured, in Markdown, a table for each number of parts."""
    return "\n\n".join(whole_table(parts, ways) for parts, ways in findings.ways.items())


def whole_table(parts: int, ways: Mapping[str, Measures]) -> str:
    """A row for each way, and what is to be reached."""
    rows = [
        [name, *(percent(found[key]) if key in found else "" for key in LABELS)]
        for name, found in ways.items()
    ]
    missed = missed_bars(parts, ways[AS_TRAINED])
    bars = ["to be reached", *(bar_text(parts, key, missed) for key in LABELS)]
    return markdown([f"{parts} parts given", *LABELS.values()], [*rows, bars])


def bars_of(parts: int) -> dict[str, float]:
    """What is to be reached with so many given parts."""
    return {"kept": KEPT_BARS[parts], **BARS}


def missed_bars(parts: int, found: Measures) -> list[str]:
    """Which of them one way does not reach."""
    return [
        key for key, bar in bars_of(parts).items()
        if (found[key].value > bar if key == "leaked" else found[key].value < bar)
    ]


def bar_text(parts: int, key: str, missed: list[str]) -> str:
    """A bar, and whether it is reached; nothing where there is none."""
    bars = bars_of(parts)
    if key not in bars:
        return ""
    least = "at most " if key == "leaked" else ""
    return f"{least}{bars[key]:.0%}, {reached(key not in missed)}"


def whole_sheet(
    whole: CreatureWhole, seed: int = 0, rows: int = 4, settings: WholeSettings = RECOMMENDED,
    on_row: Callable[[int], None] = lambda done: None,
) -> Image.Image:
    """Three references, the pose, and what eight seeds make of them, none of them picked."""
    cells: list[Image.Image] = []
    trials = draw_whole_trials(seed, rows, PART_COUNTS[0], ["white"])
    for number, trial in enumerate(trials):
        request = trial.request()
        made = whole.draw([request] * SHEET_SEEDS, 0, settings)
        given = [reference_cell(picture.image, picture.mask) for picture in request.references]
        cells += [*given, request.pose, *as_images(made)]
        on_row(number + 1)
    return contact_sheet(cells, PART_COUNTS[0] + 1 + SHEET_SEEDS, PICTURE_SIZE)


def reference_cell(picture: Tensor, mask: Tensor) -> Image.Image:
    """A reference, paler where its mask leaves it out."""
    pale = 1 - (1 - picture[0]) * 0.25
    seen = torch.where(mask[0, ..., None] > 0.5, picture[0], pale)
    return as_images(seen.movedim(-1, 0)[None])[0]
