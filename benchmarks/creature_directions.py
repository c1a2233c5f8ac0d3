"""How well directions edit creatures: the attribute changed, the others kept, and by how many pictures.

For each of ten edits a direction is found from pictures of creatures before and after it, which share nothing
else, and moves unseen creatures at the recommended amount. Their tokens are drawn and read by the attribute
reader. The published difference of means at amount 1 is the baseline. Prints three tables; with --picture
draws a strip for some edits instead. Run in the folder of the pack:

    python -m benchmarks.creature_directions
"""
from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from torch import Tensor

from benchmarks.labelled import sheet
from pit.demo.drawing.creature import ATTRIBUTES, Creature
from pit.demo.drawing.edits import EDITS, Edit, both_classes
from pit.demo.measure.markdown import markdown
from pit.demo.measure.scores import HIDDEN, NAMES, is_whole, kept, targets_of, visible
from pit.demo.measure.trials import whole_view
from pit.demo.models.chain import CreatureChain
from pit.demo.models.reader import load_reader
from pit.demo.models.sizes import ENCODER_SIZE
from pit.images import clip_pixel_values, to_pil
from pit.piece_it_together.directions import (
    CLIP_SPACE,
    METHODS,
    TOKEN_SPACE,
    Direction,
    Separation,
    apply_amounts,
    apply_direction,
    measured_direction,
    separation,
)

PICTURES, FEWER = 32, (8, 16, 32)  # of each class
COUNTS, DRAWS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64), 4
HELD_OUT = 1_000_000  # a seed that no direction is found with
STEPS = 12
CAPTION = "a creature"
CHANGED, KEPT = 0.80, 0.85
SHOWN = ("cold to warm body", "two eyes to one", "smile to fangs", "round to bunny ears", "paws to tentacles")
SHARES = (-0.5, 0.0, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True)
class Shares:
    """Of edited creatures: with the new attribute, of their other attributes kept, and whole."""

    changed: float
    kept: float
    whole: float

    @property
    def reached(self) -> bool:
        return self.changed >= CHANGED and self.kept >= KEPT


class Bench:
    """The models, and creatures that no direction has seen."""

    def __init__(self) -> None:
        self.chain, self.reader = CreatureChain(), load_reader()

    @torch.no_grad()
    def features(self, creatures: list[Creature]) -> Tensor:
        """Penultimate features, `[N, 64, 192]`."""
        pixels = clip_pixel_values([whole_view(creature) for creature in creatures], ENCODER_SIZE)
        return torch.cat([self.chain.vision.features(chunk) for chunk in pixels.split(64)])

    @torch.no_grad()
    def tokens(self, features: Tensor) -> Tensor:
        return torch.cat([self.chain.resampler(chunk) for chunk in features.split(64)])

    def found(self, name: str, count: int, method: str, space: str) -> tuple[Direction, Separation]:
        """The direction of an edit, from `count` pictures of each class."""
        classes = [self.features(creatures) for creatures in both_classes(name, count, 0)]
        if space == TOKEN_SPACE:
            classes = [self.tokens(features) for features in classes]
        return measured_direction(*classes, method, space, name)

    def edited(self, creatures: list[Creature], direction: Direction, amount: float) -> Tensor:
        """The tokens of creatures after an edit."""
        features = self.features(creatures)
        if direction.space == CLIP_SPACE:
            return self.tokens(apply_direction(features, direction.values, amount))
        return apply_direction(self.tokens(features), direction.values, amount)

    def shares(self, edit: Edit, creatures: list[Creature], tokens: Tensor) -> Shares:
        """What pictures drawn from edited tokens show."""
        pictures = self.chain.render(tokens, [CAPTION] * len(tokens), seed=1, steps=STEPS)
        reading = self.reader.read(pictures)
        options = torch.tensor([index_of(edit.attribute, value) for value in edit.after])
        shown = visible(reading.attributes)[:, NAMES.index(edit.attribute)]
        others = torch.stack([other_targets(edit, creature) for creature in creatures])
        return Shares(
            torch.isin(shown, options).double().mean().item(), kept(reading, others).double().mean().item(),
            is_whole(reading).double().mean().item(),
        )


def index_of(attribute: str, value: str) -> int:
    return ATTRIBUTES[attribute].index(value)


def other_targets(edit: Edit, creature: Creature) -> Tensor:
    """The attributes that are to stay, `[A]`; -100 for the edited one, and for the colour of a new part."""
    targets = targets_of(creature)
    targets[NAMES.index(edit.attribute)] = HIDDEN
    if "none" in edit.before + edit.after:
        targets[NAMES.index(f"{edit.slot}_color")] = HIDDEN
    return targets


def percent(value: float) -> str:
    return f"{value:.1%}"


def edits_table(bench: Bench, count: int, baseline_count: int) -> str:
    """Every edit at the recommended amount, beside no edit and the published one."""
    rows, everything = [], []
    for name, edit in EDITS.items():
        creatures, _ = both_classes(name, count, HELD_OUT)
        fewer = creatures[:baseline_count]
        ours, found = bench.found(name, PICTURES, "shrinkage", TOKEN_SPACE)
        published, _ = bench.found(name, PICTURES, "difference of means", TOKEN_SPACE)
        shares = [
            bench.shares(edit, creatures, bench.edited(creatures, ours, ours.recommended)),
            bench.shares(edit, fewer, bench.edited(fewer, published, 1.0)),
            bench.shares(edit, fewer, bench.edited(fewer, ours, 0.0)),
        ]
        everything.append(shares)
        rows.append(edit_row(name, found.accuracy, ours.recommended, shares))
        print(" | ".join(rows[-1]), flush=True)
    means = [mean_shares(column) for column in zip(*everything, strict=True)]
    rows.append(edit_row("mean of the ten", None, None, means))
    header = ["edit", "held-out pictures told apart", "amount", "changed", "others kept", "whole", "bars",
              "published: changed", "others kept", "not edited: changed", "others kept"]
    return markdown(header, rows)


def edit_row(name: str, accuracy: float | None, amount: float | None, shares: list[Shares]) -> list[str]:
    ours, published, unedited = shares
    return [
        name, "" if accuracy is None else percent(accuracy), "" if amount is None else f"{amount:.2f}",
        percent(ours.changed), percent(ours.kept), percent(ours.whole),
        "reached" if ours.reached else "failed", percent(published.changed), percent(published.kept),
        percent(unedited.changed), percent(unedited.kept),
    ]


def pictures_table(bench: Bench, count: int) -> str:
    """How many pictures each method needs, at its own recommended amount: means of the ten edits."""
    rows = []
    for pictures in FEWER:
        for label, method, space in (
            ("shrinkage", "shrinkage", TOKEN_SPACE),
            ("difference of means, as published", "difference of means", TOKEN_SPACE),
            ("shrinkage, in CLIP space", "shrinkage", CLIP_SPACE),
        ):
            accuracies, shares = [], []
            for name, edit in EDITS.items():
                creatures, _ = both_classes(name, count, HELD_OUT)
                direction, found = bench.found(name, pictures, method, space)
                tokens = bench.edited(creatures, direction, direction.recommended)
                accuracies.append(found.accuracy)
                shares.append(bench.shares(edit, creatures, tokens))
            reached = sum(each.reached for each in shares)
            rows.append([
                f"{pictures} + {pictures}", label, percent(mean(accuracies)),
                percent(mean_shares(shares).changed), percent(mean_shares(shares).kept),
                f"{reached} of {len(shares)}",
            ])
            print(" | ".join(rows[-1]), flush=True)
    header = ["pictures", "method", "held-out pictures told apart", "changed", "others kept", "both bars"]
    return markdown(header, rows)


def separation_table(bench: Bench) -> str:
    """How many left-out pictures each method tells apart: means over the edits and several draws."""
    shares: dict[tuple[int, str], list[float]] = defaultdict(list)
    for name in EDITS:
        for draw in range(DRAWS):
            classes = both_classes(name, COUNTS[-1], draw)
            first, second = (bench.tokens(bench.features(creatures)) for creatures in classes)
            for count in COUNTS:
                for method, find in METHODS.items():
                    shares[count, method].append(separation(first[:count], second[:count], find).accuracy)
    rows = [[f"{count} + {count}", *(percent(mean(shares[count, method])) for method in METHODS)]
            for count in COUNTS]
    return markdown(["pictures", *METHODS], rows)


def mean_shares(shares: Sequence[Shares]) -> Shares:
    return Shares(*(mean([getattr(each, part) for each in shares]) for part in ("changed", "kept", "whole")))


def strips(bench: Bench) -> Image.Image:
    """An unseen creature for each edit shown, along its direction."""
    rows = {}
    for name in SHOWN:
        creature = both_classes(name, 1, HELD_OUT + 1)[0]
        direction, _ = bench.found(name, PICTURES, "shrinkage", TOKEN_SPACE)
        tokens = bench.tokens(bench.features(creature))
        amounts = [share * direction.recommended for share in SHARES]
        moved = apply_amounts(tokens, direction.values, amounts)
        # The same noise for all, and a sampler step count at which small changes stay small.
        drawn = [bench.chain.render(each[None], [CAPTION], seed=1) for each in moved]
        rows[name] = to_pil(torch.cat(drawn).permute(0, 2, 3, 1))
    return sheet(rows, [f"{share:g}" for share in SHARES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=256, help="creatures an edit (default: %(default)s)")
    parser.add_argument("--fewer", type=int, default=64, help="of the baselines (default: %(default)s)")
    parser.add_argument("--counted", type=int, default=16, help="of table 2 (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="draw a strip for some edits")
    options = parser.parse_args()
    bench = Bench()
    if options.picture:
        strips(bench).save(options.picture)
        return
    print(f"{options.count} unseen creatures an edit, {options.fewer} for the baselines; directions from "
          f"{PICTURES} + {PICTURES} pictures\n")
    print(edits_table(bench, options.count, options.fewer), flush=True)
    print(f"\nleft-out pictures on their side; ten edits, {DRAWS} draws\n")
    print(separation_table(bench), flush=True)
    print(f"\n{options.counted} unseen creatures an edit, at the recommended amount\n")
    print(pictures_table(bench, options.counted), flush=True)


if __name__ == "__main__":
    main()
