"""Inserting by the recommended and the published settings, and by other means, for comparison."""
from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from ...object_insertion.condition import queries
from ...object_insertion.training.start import starting_optimizer
from ..drawing.captions import article, plain_caption
from ..drawing.composition import draw_composition
from ..drawing.things import thing_shape, thing_words
from ..models.chain import TEXT_GUIDANCE, load_text_renderer
from ..models.inserter import (
    PUBLISHED,
    RECOMMENDED,
    CreatureInserter,
    InsertionSettings,
    object_features,
    scheduler_of,
)
from ..models.reader import as_pictures
from ..models.sizes import PICTURE_SIZE, TEXT_SD15, VISION
from ..models.unet import TextRenderer
from ..triplets import MOST_MARGIN, box_of
from .object_insertion import (
    InsertionFindings,
    InsertionTrials,
    Judged,
    draw_insertion_trials,
    insertion_table,
    judge,
    measure_spread,
    summarized,
)
from .plan import Plan
from .suite import Laboratory

OURS = "recommended settings"
CEILING = "the true picture through the autoencoder"
PASTED, WORDS = "pasted at a random place, denoised by 0.5", "by words, such as a red ball"
UNTRAINED, CROPPED = "by an optimizer that was not trained", "shown by a crop of the true picture"
PASTED_SIDES = (0.2, 0.25)  # of the longer side of a thing, as shares of the picture's
DENOISED = 0.5
BATCH = 16
PUBLISHED_TRIALS = 30  # the published settings take ten times as long; no plan has fewer trials
OURS_FIRST, PUBLISHED_WAY = (
    f"{name} settings, the first {PUBLISHED_TRIALS}" for name in ("recommended", "published")
)


def insertion_tables(lab: Laboratory, plan: Plan) -> str:
    """All tables of what the shipped models insert, in Markdown; errors as in `CreatureInserter`."""
    return insertion_table(measure_insertion(lab, CreatureInserter(), plan.trials))


def insertion_pictures(plan: Plan) -> int:
    """How many pictures are rendered in all, but for the few that tell what seeds do."""
    return 5 * plan.trials + min(PUBLISHED_TRIALS, plan.trials)


def measure_insertion(lab: Laboratory, inserter: CreatureInserter, count: int) -> InsertionFindings:
    """Take all measures on `count` unseen triplets."""
    trials, findings = draw_insertion_trials(inserter, lab.seed, count), InsertionFindings()
    ceiling = judge(lab.reader, trials, inserter.decode(inserter.encode(trials.targets)))
    for name, way in ways_to_insert(lab, inserter, load_text_renderer()).items():
        used = trials.first(min(PUBLISHED_TRIALS, count) if name == PUBLISHED_WAY else count)
        start = time.perf_counter()
        pictures = way(used)
        findings.seconds[name] = (time.perf_counter() - start) / len(used.objects)
        judged = judge(lab.reader, used, pictures)
        findings.methods[name] = summarized(judged, first_of(ceiling, len(used.objects)))
        if name == OURS:
            few = min(PUBLISHED_TRIALS, count)
            findings.methods[OURS_FIRST] = summarized(first_of(judged, few), first_of(ceiling, few))
    findings.methods[CEILING] = summarized(ceiling, ceiling)
    measure_spread(inserter, trials, lab.seed, findings)
    return findings


def first_of(judged: Judged, count: int) -> Judged:
    """Only the first pictures."""
    return replace(judged, **{name: value[:count] for name, value in vars(judged).items()})


def ways_to_insert(
    lab: Laboratory, inserter: CreatureInserter, base: TextRenderer
) -> dict[str, Callable[[InsertionTrials], Tensor]]:
    """From trials to pictures `[N, 3, 256, 256]`, by what a way is called."""
    def inserted(
        trials: InsertionTrials, contexts: Tensor, settings: InsertionSettings = RECOMMENDED
    ) -> Tensor:
        return inserter.insert(trials.latents, contexts, lab.seed, settings, on_batch=lab.on_pictures)

    def by_settings(trials: InsertionTrials, settings: InsertionSettings = RECOMMENDED) -> Tensor:
        return inserted(trials, inserter.contexts(trials.objects, lab.seed), settings)

    def by_words(trials: InsertionTrials) -> Tensor:
        words = [thing_words(each.thing) for each in trials.insertions]
        with torch.no_grad():
            return inserted(trials, base.text([f"{article(each)} {each}" for each in words]))

    return {
        OURS: by_settings, PUBLISHED_WAY: lambda trials: by_settings(trials, PUBLISHED),
        CROPPED: lambda trials: by_settings(replace(trials, objects=crops(trials))),
        PASTED: lambda trials: pasted_and_denoised(lab, inserter, base, trials), WORDS: by_words,
        UNTRAINED: lambda trials: inserted(trials, untrained_contexts(inserter, trials, lab.seed)),
    }


def crops(trials: InsertionTrials) -> list[Image.Image]:
    """The new things with what is around them in the true pictures, as the published training shows them."""
    pictures = [draw_composition(each.target, PICTURE_SIZE) for each in trials.insertions]
    boxes = [box_of(each, MOST_MARGIN / 2) for each in trials.insertions]
    return [picture.crop(box) for picture, box in zip(pictures, boxes, strict=True)]


@torch.no_grad()
def untrained_contexts(inserter: CreatureInserter, trials: InsertionTrials, seed: int) -> Tensor:
    """What an optimizer makes of the objects that is as training starts it, `[N, 77, C]`."""
    optimizer = starting_optimizer(None, VISION["channels"][-1], TEXT_SD15["hidden_size"], seed)
    features = object_features(inserter.vision, trials.objects)
    query = queries(seed, 1, optimizer.output_dim).expand(len(features), -1, -1)
    return optimizer(features, query)


def pasted_and_denoised(
    lab: Laboratory, inserter: CreatureInserter, base: TextRenderer, trials: InsertionTrials
) -> Tensor:
    """The object put somewhere into the scene, and the picture denoised by half with all of it in words."""
    pictures = as_pictures([
        pasted(trials, number, random.Random(f"pasted/{lab.seed}/{number}"))
        for number in range(len(trials.objects))
    ])
    captions = [plain_caption(each.target) for each in trials.insertions]
    drawn = []
    for number, chunk in enumerate(inserter.encode(pictures).split(BATCH)):
        first = BATCH * number
        latents = denoised(base, chunk, captions[first:first + BATCH], lab.seed + first)
        drawn.append(inserter.decode(latents))
        lab.on_pictures(len(chunk))
    return torch.cat(drawn)


def pasted(trials: InsertionTrials, number: int, rng: random.Random) -> Image.Image:
    """A scene with its object at a random place."""
    insertion = trials.insertions[number]
    side = round(PICTURE_SIZE * rng.uniform(*PASTED_SIDES))
    shape = thing_shape(insertion.thing, side, share=1.0)
    picture = draw_composition(insertion.scene, PICTURE_SIZE)
    picture.paste(shape, (rng.randint(0, PICTURE_SIZE - side), rng.randint(0, PICTURE_SIZE - side)), shape)
    return picture


@torch.no_grad()
def denoised(base: TextRenderer, latents: Tensor, captions: list[str], seed: int) -> Tensor:
    """Latents `[N, 12, h, w]` with noise of the middle of a sampling, and what the base makes of them."""
    scheduler = scheduler_of(RECOMMENDED)
    begin = round(len(scheduler.timesteps) * (1 - DENOISED))
    scheduler.set_begin_index(begin)
    words = base.text(captions + [""] * len(captions))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    times = scheduler.timesteps[begin:]
    x = scheduler.add_noise(latents, noise, times[:1].expand(len(latents)))
    for step in times:
        both = torch.cat([x, x])
        asked, unasked = base.predict(both, step.expand(len(both)), words).chunk(2)
        x = scheduler.step(unasked + TEXT_GUIDANCE * (asked - unasked), step, x).prev_sample
    return x
