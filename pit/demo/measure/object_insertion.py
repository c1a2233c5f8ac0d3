"""What the creatures' InstructPix2Pix inserts: the thing that was shown or not, and where; what else changes.

All is read off the pictures by the reader, and measured against the drawn truth.
"""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from ...images import contact_sheet
from ..drawing.composition import THING_LABEL, draw_composition, draw_map
from ..drawing.draw import FOOT
from ..drawing.things import draw_thing
from ..models.inserter import QUERIES, CreatureInserter
from ..models.reader import MAP_SIZE, CreatureReader, Reading, as_pictures
from ..models.sizes import PICTURE_SIZE
from ..training.truth import pair_of
from ..triplets import Insertion, sample_insertion
from .estimates import Estimate, mean, percent, ratio, share
from .markdown import markdown, reached
from .report import as_images
from .scores import found_things, kept, targets_of

CELL = PICTURE_SIZE // MAP_SIZE
# In cells of the reader's maps: the lowest row of what stands on the ground, and how far it may be off; what
# lies between a thing and a creature that do not touch; how far a thing's shadow reaches, and its outline.
LOWEST, OFF, APART, AROUND = round(FOOT[1] / 100 * MAP_SIZE) - 1, 2, 1, 3
SPREAD_TRIALS, SPREAD_SEEDS, REPEATED = 8, 6, 4
SHEET_ROWS, SHEET_PIXELS = 8, 160

LABELS = {
    "shown": "kind and color as shown", "single": "exactly one new thing",
    "placed": "on the ground and clear of the creature",
    "kept": "the creature's attributes kept, over the autoencoder's",
    "difference": "difference outside of it, over the autoencoder's",
}
# The least, but of the difference the most, in 0..1.
BARS = {"shown": 0.85, "single": 0.95, "placed": 0.90, "kept": 0.95, "difference": 0.01}
Measures = dict[str, Estimate]
"""What was measured of one way to insert, by the keys of `LABELS`."""


@dataclass(frozen=True)
class InsertionTrials:
    """N unseen triplets with creatures.

    Attributes:
        objects: the new thing of each, alone on white.
        scenes, targets: pictures `[N, 3, 256, 256]` in 0..1.
        latents: of the scenes, `[N, 12, 16, 16]`.
        decoded: what the autoencoder makes of these, as pictures.
    """

    insertions: list[Insertion]
    objects: list[Image.Image]
    scenes: Tensor
    targets: Tensor
    latents: Tensor
    decoded: Tensor

    def first(self, count: int) -> InsertionTrials:
        """Only the first of them."""
        return InsertionTrials(*(getattr(self, each.name)[:count] for each in fields(self)))


@dataclass(frozen=True)
class Judged:
    """What is true of N pictures with inserted things, `[N]` each; `LABELS` tells what it is.

    Attributes:
        kept: the share of the creature's attributes, not over anything.
        difference: mean absolute difference, less than that of the autoencoder, in 0..1.
    """

    shown: Tensor
    single: Tensor
    placed: Tensor
    kept: Tensor
    difference: Tensor


@dataclass
class InsertionFindings:
    """What a run has found.

    Attributes:
        methods: the measures of each way to insert, first of the recommended one.
        seconds: for a picture, by the same names, where it was measured.
        spread: mean absolute deviation of pixels in 0..1 over seeds of the query, by the number of queries.
        repeats: whether the same seeds have given the same pictures.
    """

    methods: dict[str, Measures] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[int, Estimate] = field(default_factory=dict)
    repeats: bool = False


def draw_insertion_trials(inserter: CreatureInserter, seed: int, count: int) -> InsertionTrials:
    """Triplets with creatures that no training has seen, the same for the same seed."""
    insertions = [
        sample_insertion(random.Random(f"insertion/{seed}/{number}"), beside_creatures=True)
        for number in range(count)
    ]
    scenes, targets = (
        as_pictures([draw_composition(each, PICTURE_SIZE) for each in shown])
        for shown in ([each.scene for each in insertions], [each.target for each in insertions])
    )
    latents = inserter.encode(scenes)
    objects = [draw_thing(each.thing, PICTURE_SIZE) for each in insertions]
    return InsertionTrials(insertions, objects, scenes, targets, latents, inserter.decode(latents))


def judge(reader: CreatureReader, trials: InsertionTrials, pictures: Tensor) -> Judged:
    """What pictures `[N, 3, 256, 256]` in 0..1 show that were made for these trials."""
    reading = reader.read(pictures)
    new = new_things(reading.maps, trials.insertions)
    attributes = torch.stack([targets_of(each.target.creature) for each in trials.insertions])
    before = torch.tensor([len(each.scene.things) for each in trials.insertions])
    return Judged(
        shown=is_shown(reading, trials.insertions), single=reading.counts == before + 1,
        placed=stands_clear(reading.maps, new), kept=kept(reading, attributes),
        difference=difference_outside(pictures, trials, new),
    )


def is_shown(reading: Reading, insertions: list[Insertion]) -> Tensor:
    """Whether the new thing is seen, and among the most probable of as many as there should be, `[N]`."""
    numbers = torch.tensor([pair_of(each.thing) for each in insertions])[:, None]
    foremost = torch.tensor([
        int(number) in things.topk(len(each.target.things)).indices
        for number, each, things in zip(numbers, insertions, reading.things, strict=True)
    ])
    return found_things(reading).gather(1, numbers)[:, 0] & foremost


def new_things(maps: Tensor, insertions: list[Insertion]) -> Tensor:
    """Where label maps `[N, 64, 64]` show a thing that the scene does not have: the largest one, bool."""
    scenes = np.stack([draw_map(each.scene, MAP_SIZE) for each in insertions])
    before = widened(torch.from_numpy(scenes) >= THING_LABEL, AROUND - 1)
    found = ((maps == THING_LABEL) & ~before).numpy()
    return torch.from_numpy(np.stack([largest(each) for each in found]))


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask `[H, W]`, across gaps of two cells; all of an empty one."""
    # The string of a balloon is thinner than a cell.
    parts, _ = ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 3))))
    sizes = np.bincount(parts[mask], minlength=1)
    return mask & (parts == sizes.argmax())


def widened(masks: Tensor, cells: int) -> Tensor:
    """Masks `[N, H, W]` and all that lies within so many cells of them, bool."""
    return functional.max_pool2d(masks[:, None].float(), 2 * cells + 1, 1, cells)[:, 0] > 0


def stands_clear(maps: Tensor, new: Tensor) -> Tensor:
    """Whether each new thing stands on the ground and does not touch the creature, `[N]`."""
    creature = (maps > 0) & (maps < THING_LABEL)
    touches = (widened(new, APART) & creature).flatten(1).any(dim=1)
    rows = torch.arange(MAP_SIZE) * new.any(dim=2)
    grounded = (rows.amax(dim=1) - LOWEST).abs() <= OFF
    return grounded & ~touches


def difference_outside(pictures: Tensor, trials: InsertionTrials, new: Tensor) -> Tensor:
    """Mean absolute difference of pictures from their scenes, less that of the autoencoder, `[N]`.

    Outside of the new things `new [N, 64, 64]` with their shadows.
    """
    free = ~widened(new, AROUND).repeat_interleave(CELL, dim=1).repeat_interleave(CELL, dim=2)
    ours, theirs = (
        (each - trials.scenes).abs().mean(dim=1) for each in (pictures, trials.decoded)
    )
    return ((ours - theirs) * free).sum(dim=(1, 2)) / free.sum(dim=(1, 2))


def summarized(judged: Judged, ceiling: Judged) -> Measures:
    """The measures of pictures; `ceiling` is what the autoencoder makes of the true ones."""
    return {
        "shown": share(judged.shown), "single": share(judged.single), "placed": share(judged.placed),
        "kept": ratio(judged.kept, ceiling.kept), "difference": mean(judged.difference),
    }


def query_spread(inserter: CreatureInserter, trials: InsertionTrials, seed: int, queries: int) -> Estimate:
    """How far pixels in 0..1 are from their mean over seeds of the query; the noise stays the same."""
    drawn = torch.stack([
        inserter.insert(trials.latents, inserter.contexts(trials.objects, number, queries), seed)
        for number in range(SPREAD_SEEDS)
    ])
    return mean((drawn - drawn.mean(dim=0)).abs().mean(dim=(0, 2, 3, 4)))


def repeats_itself(inserter: CreatureInserter, trials: InsertionTrials, seed: int) -> bool:
    """Whether the same seeds give the same pictures."""
    def draw() -> Tensor:
        return inserter.insert(trials.latents, inserter.contexts(trials.objects, seed), seed)

    return torch.equal(draw(), draw())


def measure_spread(
    inserter: CreatureInserter, trials: InsertionTrials, seed: int, findings: InsertionFindings
) -> None:
    """What seeds make of the first trials."""
    findings.repeats = repeats_itself(inserter, trials.first(REPEATED), seed)
    for queries in (1, QUERIES):
        findings.spread[queries] = query_spread(inserter, trials.first(SPREAD_TRIALS), seed, queries)


def insertion_table(findings: InsertionFindings) -> str:
    """All that was measured, in Markdown."""
    rows = [
        [name, *(text_of(key, measures[key]) for key in LABELS), seconds_of(findings.seconds.get(name))]
        for name, measures in findings.methods.items()
    ]
    missed = missed_bars(next(iter(findings.methods.values())))
    bars = ["to be reached", *(bar_of(key, missed) for key in LABELS), ""]
    methods = markdown(["how", *LABELS.values(), "seconds a picture"], [*rows, bars])
    others = [["the same seeds, the same picture", "yes" if findings.repeats else "NO"]]
    others += [
        [f"deviation of pixels over seeds of {count} {'query' if count == 1 else 'queries'}",
         text_of("difference", estimate)]
        for count, estimate in findings.spread.items()
    ]
    return f"{methods}\n\n{markdown(['seeds', 'found'], others)}"


def text_of(key: str, estimate: Estimate) -> str:
    """A measure with its interval."""
    if key != "difference":
        return percent(estimate)
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def bar_of(key: str, missed: list[str]) -> str:
    """A bar, and whether it is reached."""
    bar = f"at most {BARS[key]}" if key == "difference" else f"{BARS[key]:.0%}"
    return f"{bar}, {reached(key not in missed)}"


def seconds_of(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"


def missed_bars(measures: Mapping[str, Estimate]) -> list[str]:
    """Which bars one way to insert does not reach."""
    return [
        key for key, bar in BARS.items()
        if (measures[key].value > bar if key == "difference" else measures[key].value < bar)
    ]


def insertion_sheet(
    inserter: CreatureInserter, count: int = 24, on_picture: Callable[[int], None] = lambda done: None
) -> Image.Image:
    """Scene, object and result of the seeds from 0 on, none of them picked."""
    pictures = []
    for seed in range(count):
        trials = draw_insertion_trials(inserter, seed, 1)
        drawn = inserter.insert(trials.latents, inserter.contexts(trials.objects, seed), seed)
        shown = torch.stack([trials.scenes[0], as_pictures(trials.objects)[0], drawn[0]])
        pictures += [each.resize((SHEET_PIXELS,) * 2, Image.Resampling.LANCZOS) for each in as_images(shown)]
        on_picture(seed + 1)
    return contact_sheet(pictures, 3 * -(-count // SHEET_ROWS), SHEET_PIXELS)
