"""What a run found, as JSON, and as a sheet of pictures."""
from __future__ import annotations

from PIL import Image, ImageDraw
from torch import Tensor

from ...images import contact_sheet, to_pil
from ..models.sizes import PICTURE_SIZE
from .estimates import Estimate
from .findings import Findings
from .suite import RECOMMENDED, Laboratory
from .tables import bars
from .trials import FREE, draw_trials

SHEET_PART_COUNTS = (1, 2, 2, 3, 3, 3)
SHEET_SEEDS = 8
RULE = 2


def as_json(findings: Findings) -> dict[str, object]:
    """Every measure as a number, and beside them their intervals, sample counts and the other tables."""
    measures = findings.measures
    targets = bars(findings)
    return values(measures) | {
        "intervals": {name: [estimate.low, estimate.high] for name, estimate in measures.items()},
        "samples": {name: estimate.count for name, estimate in measures.items()},
        "bars": {name: targets[name] for name in measures if name in targets},
        "chance": values(findings.floors),
        "attributes": {name: values(shares) for name, shares in findings.attributes.items()},
        "stages": {name: values(stages) for name, stages in findings.stages.items()},
        "kept_at_scene": values(findings.scenes_kept),
        "distances": findings.distances,
        "baselines": [
            {"method": row.method, "parts": row.parts, "kept": row.kept.value, "whole": row.whole.value,
             "both": row.both.value}
            for row in findings.comparisons
        ],
        "seconds": findings.seconds,
    }


def values(estimates: dict[str, Estimate]) -> dict[str, float]:
    """The numbers without their intervals."""
    return {name: estimate.value for name, estimate in estimates.items()}


def concept_sheet(lab: Laboratory) -> Image.Image:
    """Six sets of parts on the left, what eight seeds in a row made of each on the right, none picked."""
    rows, widest = [], max(SHEET_PART_COUNTS)
    for number, parts in enumerate(SHEET_PART_COUNTS):
        trial = draw_trials(lab.seed, number + 1, parts, FREE, purpose="sheet")[-1]
        tokens = lab.sample(lab.conditions([trial]).expand(SHEET_SEEDS, -1, -1), RECOMMENDED)
        given = [picture.resize((PICTURE_SIZE,) * 2) for picture in trial.part_pictures()]
        drawn = as_images(lab.chain.render(tokens, [trial.caption] * SHEET_SEEDS, 0))
        rows += [None] * (widest - parts) + given + drawn
    sheet = contact_sheet(rows, widest + SHEET_SEEDS, PICTURE_SIZE)
    border = widest * PICTURE_SIZE
    ImageDraw.Draw(sheet).line((border, 0, border, sheet.height), fill=(150, 140, 160), width=RULE)
    return sheet


def as_images(pictures: Tensor) -> list[Image.Image]:
    """`[N, 3, H, W]` in 0..1 to PIL."""
    return to_pil(pictures.permute(0, 2, 3, 1))
