"""Which preset trains better: the same minutes for each, from scratch, on the creatures' tokens.

Draws creatures, encodes them into a token cache with the shipped encoder, trains a prior of the creature
models' size with each recipe for the same time, and measures how much of the given parts it keeps, as read
off rendered pictures. Prints a table; with --picture also shows what each prior makes of the same parts. Run
in the folder of the pack, on a machine that does nothing else:

    python -m benchmarks.presets
"""
from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from pit.demo.measure import suite
from pit.demo.measure.scores import is_whole, kept
from pit.demo.measure.trials import Trial, all_targets, draw_trials
from pit.demo.models.chain import CreatureChain
from pit.demo.models.reader import load_reader
from pit.demo.training.data import open_dataset
from pit.demo.training.encoder import ImageTokens, encode_views
from pit.demo.training.prior import RECIPE, SIZES, PriorData, write_cache
from pit.images import to_pil
from pit.piece_it_together.prior_files import load_prior
from pit.piece_it_together.training.cache import open_cache
from pit.piece_it_together.training.recipes import PUBLISHED, RECOMMENDED, PriorRecipe
from pit.piece_it_together.training.start import begin, new_prior
from pit.training.metrics import read_points
from pit.training.recipes import RunSettings

RECIPES = {
    "published": PUBLISHED,
    "published, rate by the width": replace(PUBLISHED, learning_rate=None),
    "recommended": RECOMMENDED,
    "as the creature prior": RECIPE,
}
ENDLESS = 10**6  # more steps than any run here makes: nothing is saved or validated on the way
WARM_UP, TIMED = 10, 60
SAMPLING = suite.RECOMMENDED
SHOWN, CELL, LABEL = 8, 96, 200
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Outcome:
    """The result of a recipe: steps, validation loss, shares kept of 2 and of 5 parts, complete creatures."""

    steps: int
    loss: float
    kept: dict[int, float]
    whole: float


def creature_cache(folder: Path, chain: CreatureChain, count: int) -> Path:
    """A token cache of `count` drawn creatures; returns its folder."""
    with tqdm(total=count, desc="creatures", mininterval=5) as bar:
        data = open_dataset(folder / "data", count, 0, 2, lambda done: bar.update(done - bar.n))
    encoder = ImageTokens()
    encoder.vision, encoder.resampler = chain.vision, chain.resampler
    parts = data["part_views"]
    tokens = encode_views(encoder, parts.reshape(-1, *parts.shape[2:]), CPU).unflatten(0, parts.shape[:2])
    prior_data = PriorData(
        encode_views(encoder, data["views"], CPU), tokens, data["part_kinds"], chain.empty, chain.uncond
    )
    return write_cache(folder / "cache", prior_data, encoder)


def train(cache: Path, folder: Path, recipe: PriorRecipe, minutes: float) -> Path:
    """Train a prior for some minutes; returns its file.

    The number of steps is fixed beforehand, from the time of a few, since the learning rate falls with it.
    """
    steps = int(60 * minutes / seconds_a_step(cache, folder / "timing", recipe))
    settings = RunSettings(folder / "run", save_every=ENDLESS, validate_every=ENDLESS)
    trainer = begin(cache, SIZES, replace(recipe, steps=steps), settings, cpu=True)
    with tqdm(total=steps, desc=folder.name, mininterval=5) as bar:
        return trainer.run(lambda progress: bar.update())


def seconds_a_step(cache: Path, folder: Path, recipe: PriorRecipe) -> float:
    """The time of one step, averaged over a few after warming up."""
    settings = RunSettings(folder, save_every=ENDLESS, validate_every=ENDLESS)
    trainer = begin(cache, SIZES, replace(recipe, steps=ENDLESS), settings, cpu=True)
    with trainer.batches() as batches:
        for number in range(WARM_UP + TIMED):
            if number == WARM_UP:
                start = time.perf_counter()
            trainer.update(trainer.gradients(batches))
    return (time.perf_counter() - start) / TIMED


def pictures_of(lab: suite.Laboratory, trials: list[Trial]) -> Tensor:
    """What the prior of the chain makes of the parts, rendered, `[N, 3, 128, 128]` in 0..1."""
    tokens = lab.sample(lab.conditions(trials), SAMPLING)
    return lab.chain.render(tokens, [trial.caption for trial in trials], lab.seed)


def pictures_shown(lab: suite.Laboratory, trials: list[Trial]) -> list[Image.Image]:
    """What the prior of the chain makes of the parts, as PIL pictures."""
    return to_pil(pictures_of(lab, trials).permute(0, 2, 3, 1))


def outcome(lab: suite.Laboratory, run: Path, count: int) -> Outcome:
    """Measure the prior of the chain, which was trained in the folder `run`."""
    last = [point for point in read_points(run) if point.validation is not None][-1]
    shares, whole = {}, []
    for parts in (2, 5):
        trials = draw_trials(lab.seed, count, parts, 0.0)
        reading = lab.reader.read(pictures_of(lab, trials))
        shares[parts] = kept(reading, all_targets(trials)).mean().item()
        whole.append(is_whole(reading).float().mean().item())
    return Outcome(last.step, last.validation, shares, sum(whole) / len(whole))


def sheet(trials: Sequence[Trial], rows: dict[str, list[Image.Image]]) -> Image.Image:
    """The parts of each trial, and below them what each prior makes of them (RGB)."""
    image = Image.new("RGB", (LABEL + CELL * len(trials), CELL * (len(rows) + 2)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    parts = [[part.resize((CELL, CELL)) for part in trial.part_pictures()] for trial in trials]
    given = {"given": [pair[0] for pair in parts], "": [pair[1] for pair in parts]}
    for row, (label, pictures) in enumerate((given | rows).items()):
        draw.text((12, CELL * row + CELL // 2), label, "#333333", font, anchor="lm")
        for column, picture in enumerate(pictures):
            image.paste(picture.resize((CELL, CELL)), (LABEL + CELL * column, CELL * row))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="for each recipe (default: %(default)s)")
    parser.add_argument("--creatures", type=int, default=6000, help="to train on (default: %(default)s)")
    parser.add_argument("--count", type=int, default=32, help="measured per number (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for the data and the priors (default: a temporary one)")
    parser.add_argument("--picture", type=Path, help="show what each makes of the same parts in this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(options, options.folder or Path(temporary))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Train and measure each recipe, and print the table."""
    chain = CreatureChain()
    lab, trials = suite.Laboratory(chain, load_reader(), 100), draw_trials(7, SHOWN, 2, 0.0)
    cache = creature_cache(folder, chain, options.creatures)
    chain.prior = new_prior(open_cache(cache), SIZES, seed=0)[0].eval()
    outcomes, rows = {}, {"untrained": pictures_shown(lab, trials)}
    for name, recipe in RECIPES.items():
        chain.prior = load_prior(train(cache, folder / name, recipe, options.minutes)).eval()
        outcomes[name] = outcome(lab, folder / name / "run", options.count)
        rows[name] = pictures_shown(lab, trials)
    print(f"{options.minutes:g} minutes each on {torch.get_num_threads()} CPU threads, from scratch; kept on "
          f"{options.count} free mixtures each, guidance {SAMPLING.guidance_scale:g}")
    print(f"{'recipe':<30}{'steps':>8}{'batch':>8}{'validation':>12}{'kept of 2':>12}{'of 5':>8}{'whole':>8}")
    for name, found in outcomes.items():
        print(f"{name:<30}{found.steps:>8}{RECIPES[name].batch:>8}{found.loss:>12.3f}{found.kept[2]:>12.1%}"
              f"{found.kept[5]:>8.1%}{found.whole:>8.1%}")
    if options.picture:
        sheet(trials, rows).save(options.picture)


if __name__ == "__main__":
    main()
