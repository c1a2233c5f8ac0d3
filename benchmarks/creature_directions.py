"""How well directions edit creatures: what they change, what they keep, and how many pictures they need.

For each of ten edits, a direction is found from pictures of creatures before and after the edit, which have
nothing else in common, and moves unseen creatures by the recommended amount. The edited tokens are rendered,
and the attribute reader reads the pictures. The baseline is the published difference of means at amount 1.
Prints three tables; with --picture shows a strip for some edits instead. Run in the folder of the pack:

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
from pit.concepts.directions import (
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
from pit.demo.drawing.creature import ATTRIBUTES, UNSEEN, Creature
from pit.demo.drawing.draw import whole_view
from pit.demo.drawing.edits import EDITS, Edit, both_classes
from pit.demo.measure.markdown import markdown
from pit.demo.measure.scores import NAMES, is_whole, kept, targets_of, visible
from pit.demo.models.chain import CreatureChain
from pit.demo.models.reader import load_reader
from pit.demo.models.sizes import ENCODER_SIZE
from pit.images import clip_pixel_values, to_pil

PICTURES, FEWER = 32, (8, 16, 32)  # of each of the two classes
COUNTS, DRAWS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64), 4
HELD_OUT = 1_000_000  # a seed with which no direction is found
STEPS = 12
CAPTION = "a creature"
CHANGED, KEPT = 0.80, 0.85
SHOWN = ("cold to warm body", "two eyes to one", "smile to fangs", "round to bunny ears", "paws to tentacles")
SHARES = (-0.5, 0.0, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True)
class Shares:
    """Shares among edited creatures: with the new attribute, other attributes kept, complete."""

    changed: float
    kept: float
    whole: float

    @property
    def reached(self) -> bool:
        """Whether both bars are reached."""
        return self.changed >= CHANGED and self.kept >= KEPT


class Bench:
    """The models on which directions are measured."""

    def __init__(self) -> None:
        self.chain, self.reader = CreatureChain(), load_reader()

    @torch.no_grad()
    def features(self, creatures: list[Creature]) -> Tensor:
        """Penultimate features, `[N, 64, 192]`."""
        pixels = clip_pixel_values([whole_view(creature) for creature in creatures], ENCODER_SIZE)
        return torch.cat([self.chain.vision.features(chunk) for chunk in pixels.split(64)])

    @torch.no_grad()
    def tokens(self, features: Tensor) -> Tensor:
        """Tokens of features, `[N, 16, D]`."""
        return torch.cat([self.chain.resampler(chunk) for chunk in features.split(64)])

    def found(self, name: str, count: int, method: str, space: str) -> tuple[Direction, Separation]:
        """The direction of an edit, found from `count` pictures of each class."""
        classes = [self.features(creatures) for creatures in both_classes(name, count, 0)]
        if space == TOKEN_SPACE:
            classes = [self.tokens(features) for features in classes]
        return measured_direction(*classes, method, space, name)

    def edited(self, creatures: list[Creature], direction: Direction, amount: float) -> Tensor:
        """The tokens of edited creatures, `[N, 16, D]`."""
        features = self.features(creatures)
        if direction.space == CLIP_SPACE:
            return self.tokens(apply_direction(features, direction.values, amount))
        return apply_direction(self.tokens(features), direction.values, amount)

    def shares(self, edit: Edit, creatures: list[Creature], tokens: Tensor) -> Shares:
        """What pictures rendered from edited tokens show."""
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
    """The index under which the reader reports a value."""
    return ATTRIBUTES[attribute].index(value)


def other_targets(edit: Edit, creature: Creature) -> Tensor:
    """The attributes that should stay, `[A]`; -100 for the edited one, and for the color of a new part."""
    targets = targets_of(creature)
    targets[NAMES.index(edit.attribute)] = UNSEEN
    if "none" in edit.before + edit.after:
        targets[NAMES.index(f"{edit.slot}_color")] = UNSEEN
    return targets


def percent(value: float) -> str:
    """A share as text."""
    return f"{value:.1%}"


def edits_table(bench: Bench, count: int, baseline_count: int) -> str:
    """Every edit at the recommended amount, compared with the published one and with no edit."""
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
    """One row of `edits_table`, from the shares of our edit, of the published one, and of no edit."""
    ours, published, unedited = shares
    return [
        name, "" if accuracy is None else percent(accuracy), "" if amount is None else f"{amount:.2f}",
        percent(ours.changed), percent(ours.kept), percent(ours.whole),
        "reached" if ours.reached else "failed", percent(published.changed), percent(published.kept),
        percent(unedited.changed), percent(unedited.kept),
    ]


def pictures_table(bench: Bench, count: int) -> str:
    """How many pictures each method needs, at its own recommended amount: means over the ten edits."""
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
    """How many held-out pictures each method tells apart: means over the edits and several draws."""
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
    """The mean of each of them."""
    return Shares(*(mean([getattr(each, part) for each in shares]) for part in ("changed", "kept", "whole")))


def strips(bench: Bench) -> Image.Image:
    """For some edits, an unseen creature moved along the direction."""
    rows = {}
    for name in SHOWN:
        creature = both_classes(name, 1, HELD_OUT + 1)[0]
        direction, _ = bench.found(name, PICTURES, "shrinkage", TOKEN_SPACE)
        tokens = bench.tokens(bench.features(creature))
        amounts = [share * direction.recommended for share in SHARES]
        moved = apply_amounts(tokens, direction.values, amounts)
        # The same noise for all, and enough steps that small changes of the tokens stay small.
        rendered = [bench.chain.render(each[None], [CAPTION], seed=1) for each in moved]
        rows[name] = to_pil(torch.cat(rendered).permute(0, 2, 3, 1))
    return sheet(rows, [f"{share:g}" for share in SHARES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=256, help="creatures per edit (default: %(default)s)")
    parser.add_argument("--fewer", type=int, default=64, help="creatures per baseline (default: %(default)s)")
    parser.add_argument("--counted", type=int, default=16, help="in the last table (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="draw a strip for some edits into this file instead")
    options = parser.parse_args()
    bench = Bench()
    if options.picture:
        strips(bench).save(options.picture)
        return
    print(f"{options.count} unseen creatures per edit, {options.fewer} for the baselines; directions from "
          f"{PICTURES} + {PICTURES} pictures\n")
    print(edits_table(bench, options.count, options.fewer), flush=True)
    print(f"\nheld-out pictures told apart; means over ten edits and {DRAWS} draws\n")
    print(separation_table(bench), flush=True)
    print(f"\n{options.counted} unseen creatures per edit, at the recommended amount\n")
    print(pictures_table(bench, options.counted), flush=True)


if __name__ == "__main__":
    main()
