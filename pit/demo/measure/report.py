"""What a run found, as tables, as JSON, and as a sheet of pictures."""
from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...images import contact_sheet
from ..models.sizes import PICTURE_SIZE
from .estimates import percent
from .experiment import PART_COUNTS, Comparison, Findings
from .labels import DISTANCES, KINDS, LABELS
from .markdown import markdown
from .suite import RECOMMENDED, Laboratory
from .trials import COHERENCE, FREE, draw_trials

BARS = {
    "reader_accuracy": 0.97, "ceiling": 0.90, "kept_2_free": 0.85, "kept_5_free": 0.75, "whole": 0.95,
    "diverse": 0.80, "scene_0.7": 0.80,
}
NATURAL_SHARE_OF_CEILING = 0.93
SHEET_PART_COUNTS = (1, 2, 2, 3, 3, 3)
SHEET_SEEDS = 8
RULE = 2


def bars(findings: Findings) -> dict[str, float]:
    """The least that each measure has to reach."""
    return BARS | {"kept_2_natural": NATURAL_SHARE_OF_CEILING * findings.measures["ceiling_natural"].value}


def as_json(findings: Findings) -> dict[str, object]:
    """Every measure as a number, and beside them their intervals, sample counts and the other tables."""
    measures = findings.measures
    return {name: estimate.value for name, estimate in measures.items()} | {
        "intervals": {name: [estimate.low, estimate.high] for name, estimate in measures.items()},
        "samples": {name: estimate.count for name, estimate in measures.items()},
        "chance": {name: estimate.value for name, estimate in findings.floors.items()},
        "reader": {name: estimate.value for name, estimate in findings.reader.items()},
        "stages": {
            name: {stage: estimate.value for stage, estimate in stages.items()}
            for name, stages in findings.stages.items()
        },
        "kept_at_scene": {name: estimate.value for name, estimate in findings.scenes_kept.items()},
        "distances": findings.distances,
        "baselines": [
            {"method": row.method, "parts": row.parts, "kept": row.kept.value, "whole": row.whole.value,
             "both": row.both.value}
            for row in findings.comparisons
        ],
        "seconds": findings.seconds,
    }


def tables(findings: Findings) -> str:
    """All tables, in Markdown."""
    return "\n\n".join([
        kept_table(findings), other_table(findings), comparison_table(findings), stage_table(findings),
        reader_table(findings), time_table(findings),
    ])


def verdict(findings: Findings, name: str) -> str:
    """The bar of a measure and whether it is reached; nothing for a measure without one."""
    bar = bars(findings).get(name)
    if bar is None:
        return ""
    return f"{bar:.1%}, {'reached' if findings.measures[name].value >= bar else 'MISSED'}"


def kept_table(findings: Findings) -> str:
    rows = []
    for coherence in COHERENCE:
        for parts in PART_COUNTS:
            name = f"kept_{parts}_{coherence}"
            estimate, floor = findings.measures[name], findings.floors[name]
            rows.append([LABELS[name], percent(estimate), f"{floor.value:.1%}", verdict(findings, name)])
    header = ["attributes of the given parts found", "share (95% interval)", "by chance", "target"]
    return markdown(header, rows)


def other_table(findings: Findings) -> str:
    rows = [
        [LABELS[name], percent(estimate), verdict(findings, name)]
        for name, estimate in findings.measures.items() if not name.startswith("kept")
    ]
    rows += [
        [f"given parts kept, adapter weight {name.removeprefix('scene_')}", percent(estimate), ""]
        for name, estimate in findings.scenes_kept.items()
    ]
    rows += [
        [f"{DISTANCES[kind]}, {KINDS[coherence]}", f"{value:.3f}", ""]
        for coherence, kinds in findings.distances.items() for kind, value in kinds.items()
    ]
    return markdown(["measure", "value (95% interval)", "target"], rows)


def comparison_table(findings: Findings) -> str:
    """Every way from parts to tokens, and whether the prior beats it on kept and whole together."""
    rows = [
        [row.method, str(row.parts), percent(row.kept), percent(row.whole), percent(row.both), beaten(row)]
        for row in findings.comparisons
    ]
    header = [
        "method", "parts given", "attributes kept", "complete creatures", "kept, 0 where incomplete",
        "beaten by the prior",
    ]
    return markdown(header, rows)


def beaten(row: Comparison) -> str:
    """Whether the prior is ahead of a method, clearly or not; nothing for the prior itself."""
    lead = row.lead
    if lead is None:
        return ""
    clear = "" if lead.low > 0 or lead.high < 0 else ", not clearly"
    return f"{'yes' if lead.value > 0 else 'NO'}{clear} ({lead.value * 100:+.1f} points)"


def stage_table(findings: Findings) -> str:
    rows = [
        [KINDS[coherence], *(percent(estimate) for estimate in stages.values())]
        for coherence, stages in findings.stages.items()
    ]
    header = ["attributes of true creatures", "drawn", "through the autoencoder", "rendered from true tokens"]
    return markdown(header, rows)


def reader_table(findings: Findings) -> str:
    rows = [
        ["complete or flawed" if name == "whole" else name.replace("_", " "), percent(estimate)]
        for name, estimate in findings.reader.items()
    ]
    return markdown(["what the reader tells of fresh drawings", "right"], rows)


def time_table(findings: Findings) -> str:
    rows = [[stage, f"{seconds:.2f}"] for stage, seconds in findings.seconds.items()]
    together = ["together", f"{sum(findings.seconds.values()):.2f}"]
    return markdown(["stage, for eight concepts", "seconds"], [*rows, together])


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
    pixels = (pictures.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(picture.numpy()) for picture in pixels]
