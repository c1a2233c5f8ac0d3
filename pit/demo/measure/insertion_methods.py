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
from ..drawing.captions import article, plain_caption
from ..drawing.composition import draw_composition
from ..drawing.things import thing_shape, thing_words
from ..models.chain import GUIDANCE, load_text_renderer
from ..models.inserter import (
    PUBLISHED,
    RECOMMENDED,
    CreatureInserter,
    InsertionSettings,
    build_optimizer,
    object_features,
    scheduler_of,
)
from ..models.reader import CreatureReader, as_pictures
from ..models.sizes import PICTURE_SIZE
from ..models.unet import TextRenderer
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

OURS, PUBLISHED_WAY = "recommended settings", "published settings"
CEILING = "the true picture through the autoencoder"
PASTED, WORDS = "pasted at a random place, denoised by 0.5", "by its words"
UNTRAINED = "by an optimizer without training"
PASTED_SIDES = (0.2, 0.25)  # of the longer side of a thing, as shares of the picture's
DENOISED = 0.5


def insertion_tables(lab: Laboratory, plan: Plan) -> str:
    """All tables of what the shipped models insert, in Markdown; errors as in `CreatureInserter`."""
    return insertion_table(measure_insertion(CreatureInserter(), lab.reader, lab.seed, plan.trials))


def measure_insertion(
    inserter: CreatureInserter, reader: CreatureReader, seed: int, count: int, published: int = 32,
    on_method: Callable[[str], None] = lambda name: None,
) -> InsertionFindings:
    """Take all measures on `count` unseen triplets.

    Args:
        published: on how many of them the published settings are tried, which take ten times as long.
        on_method: told the name of each way to insert before it is measured.
    """
    trials, findings = draw_insertion_trials(inserter, seed, count), InsertionFindings()
    ceiling = judge(reader, trials, inserter.decode(inserter.encode(trials.targets)))
    ways = ways_to_insert(inserter, load_text_renderer(), seed)
    for name, way in ways.items():
        on_method(name)
        used = trials.first(min(published, count) if name == PUBLISHED_WAY else count)
        start = time.perf_counter()
        judged = judge(reader, used, way(used))
        findings.seconds[name] = (time.perf_counter() - start) / len(used.objects)
        findings.methods[name] = summarized(judged, first_of(ceiling, len(used.objects)))
    findings.methods[CEILING] = summarized(ceiling, ceiling)
    measure_spread(inserter, trials, seed, findings)
    return findings


def first_of(judged: Judged, count: int) -> Judged:
    """Only the first pictures."""
    return replace(judged, **{name: value[:count] for name, value in vars(judged).items()})


def ways_to_insert(
    inserter: CreatureInserter, base: TextRenderer, seed: int
) -> dict[str, Callable[[InsertionTrials], Tensor]]:
    """From trials to pictures `[N, 3, 256, 256]`, by what a way is called."""
    def by_settings(trials: InsertionTrials, settings: InsertionSettings = RECOMMENDED) -> Tensor:
        return inserter.insert(trials.latents, inserter.contexts(trials.objects, seed), seed, settings)

    def by_words(trials: InsertionTrials) -> Tensor:
        words = [thing_words(each.thing) for each in trials.insertions]
        with torch.no_grad():
            contexts = base.text([f"{article(each)} {each}" for each in words])
        return inserter.insert(trials.latents, contexts, seed, RECOMMENDED)

    return {
        OURS: by_settings, PUBLISHED_WAY: lambda trials: by_settings(trials, PUBLISHED),
        PASTED: lambda trials: pasted_and_denoised(inserter, base, trials, seed), WORDS: by_words,
        UNTRAINED: lambda trials: by_untrained(inserter, trials, seed),
    }


def by_untrained(inserter: CreatureInserter, trials: InsertionTrials, seed: int) -> Tensor:
    """With an optimizer of random weights in place of the trained one."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        optimizer = build_optimizer()
        features = object_features(inserter.vision, trials.objects)
        query = queries(seed, 1, optimizer.output_dim).expand(len(features), -1, -1)
        return inserter.insert(trials.latents, optimizer(features, query), seed, RECOMMENDED)


def pasted_and_denoised(
    inserter: CreatureInserter, base: TextRenderer, trials: InsertionTrials, seed: int
) -> Tensor:
    """The object put somewhere into the scene, and the picture denoised by half with all of it in words."""
    pictures = as_pictures([
        pasted(trials, number, random.Random(f"pasted/{seed}/{number}"))
        for number in range(len(trials.objects))
    ])
    captions = [plain_caption(each.target) for each in trials.insertions]
    latents = inserter.encode(pictures).split(16)
    return torch.cat([
        inserter.decode(denoised(base, chunk, captions[16 * number:16 * (number + 1)], seed + 16 * number))
        for number, chunk in enumerate(latents)
    ])


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
        x = scheduler.step(unasked + GUIDANCE * (asked - unasked), step, x).prev_sample
    return x
