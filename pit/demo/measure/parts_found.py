"""Parts that DINO and k-means find in creatures without any label, compared with the true ones."""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...partcraft.discovery import SEED, Discovery, PartClusters, discover, find_parts, usual_codes
from ...partcraft.kmeans import cluster
from ..drawing.creature import ATTRIBUTES, PARTS, Creature, sample_creature
from ..part_places import GROUPS, START, Collection, Overlaps, features_of, from_features
from .estimates import Estimate, column_shares, percent, ratio
from .markdown import markdown, reached
from .trials import FREE

BARS = {"parts": 0.55, "codes": 0.85}  # of the means
FAR = 5.0  # what makes cosines of places compare distances


@dataclass(frozen=True)
class PartsFound:
    """How well parts and codes were found.

    Attributes:
        parts, by_place: intersection over union with the true masks, by part; found by features, and by
            where a place is alone, with the foreground given.
        shipped: the same, found by clusters of other pictures.
        codes, by_chance: purity by part: the share of creatures whose part has the style and color that most
            creatures of its code have in the other half; with the codes exchanged among them in the second.
    """

    parts: dict[str, Estimate]
    shipped: dict[str, Estimate]
    by_place: dict[str, Estimate]
    codes: dict[str, Estimate]
    by_chance: dict[str, Estimate]


MEAN = "mean"  # beside the parts


def free_creatures(seed: int, count: int) -> list[Creature]:
    """Unseen creatures of free mixtures."""
    rng = random.Random(f"parts found/{seed}")
    return [sample_creature(rng, FREE) for _ in range(count)]


def measure_parts(
    dino: torch.nn.Module, collection: Collection, clusters: PartClusters, codes: int | None = None
) -> PartsFound:
    """Find the parts of a collection as published, and compare them with the true ones.

    Args:
        clusters: found in other pictures, as `PartsFound.shipped` tells.
        codes: of each part; one for every four creatures, 256 at most, if None.
    """
    seen = features_of(dino, collection.pictures)
    count = len(seen)
    found = discover(from_features(seen), count, GROUPS, codes or usual_codes(count), seed=SEED, start=START)
    overlaps = Overlaps.of(find_parts(seen, found.clusters).labels, collection.truth)
    own = found.codes[:, overlaps.groups]
    chance = torch.stack([column[shuffled(count)] for column in own.T], dim=1)
    return PartsFound(
        shares_of(overlaps),
        shares_of(Overlaps.of(find_parts(seen, clusters).labels, collection.truth)),
        shares_of(Overlaps.of(labels_by_place(collection.truth), collection.truth)),
        purities(own, found, collection), purities(chance, found, collection),
    )


def shares_of(overlaps: Overlaps) -> dict[str, Estimate]:
    """Intersection over union by part, and their mean."""
    columns = zip(PARTS, overlaps.both.T, overlaps.either.T, strict=True)
    return {part: ratio(both, either) for part, both, either in columns} | {
        MEAN: ratio(overlaps.both, overlaps.either)
    }


def labels_by_place(truth: Tensor) -> Tensor:
    """Groups by where places are alone, in the true foreground; left and right are the same, `[N, h, w]`."""
    height, width = truth.shape[1:]
    rows, columns = torch.meshgrid(middles(height), middles(width).abs(), indexing="ij")
    places = torch.stack([columns, rows, torch.full_like(rows, FAR)], dim=-1)
    front = truth > 0
    _, groups = cluster(
        places.expand(len(truth), -1, -1, -1)[front], len(PARTS), np.random.RandomState(SEED), start=START
    )
    return torch.full_like(truth, len(PARTS)).masked_scatter(front, groups)


def middles(count: int) -> Tensor:
    """The middles of places in a row, -0.5 to 0.5."""
    return (torch.arange(count) + 0.5) / count - 0.5


def purities(codes: Tensor, found: Discovery, collection: Collection) -> dict[str, Estimate]:
    """The purity of codes `[N, 9]` by part, and the mean over the parts; see `PartsFound`."""
    looks = torch.tensor([[look(creature, part) for part in PARTS] for creature in collection.creatures])
    seen = (looks >= 0) & (codes != found.clusters.absent)
    right = torch.stack([
        is_usual(*columns) for columns in zip(codes.T, looks.T, seen.T, strict=True)
    ], dim=1)
    return column_shares(right, seen, PARTS) | {MEAN: ratio(right & seen, seen)}


def look(creature: Creature, part: str) -> int:
    """A number for style and color of a part, -1 if the creature lacks it."""
    style = creature.attributes[part]
    colors = ATTRIBUTES.get(f"{part}_color", [""])
    color = creature.attributes.get(f"{part}_color", "")
    return -1 if style == "none" else ATTRIBUTES[part].index(style) * len(colors) + colors.index(color)


def is_usual(codes: Tensor, looks: Tensor, seen: Tensor) -> Tensor:
    """Whether each of N parts has the look that most of its code have in the other half of them, `[N]`.

    Only those that are seen count.
    """
    # Not in its own half: where a code has few members, each of them would decide what is usual.
    half, right = torch.arange(len(codes)) % 2, torch.zeros(len(codes), dtype=torch.bool)
    for own in range(2):
        others = seen & (half != own)
        counts = torch.zeros(int(codes.max()) + 1, max(int(looks.max()), 0) + 1)
        counts.index_put_((codes[others], looks[others]), torch.ones(int(others.sum())), accumulate=True)
        known = counts.any(dim=1)[codes]
        right |= (half == own) & known & (counts.argmax(dim=1)[codes] == looks)
    return right


def shuffled(count: int) -> Tensor:
    """The numbers of as many rows in random order; always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SEED))


def parts_table(found: PartsFound) -> str:
    """The measures by part, and what is to be reached, in Markdown."""
    columns = (found.parts, found.shipped, found.by_place, found.codes, found.by_chance)
    rows = [[name, *(percent(column[name]) for column in columns)] for name in (*PARTS, MEAN)]
    bars = [
        "to be reached", verdict(found.parts[MEAN], BARS["parts"]), "", "",
        verdict(found.codes[MEAN], BARS["codes"]), "",
    ]
    return markdown([
        "part", "intersection over union, found", "found by the shipped clusters", "found by place alone",
        "purity of codes", "purity by chance",
    ], [*rows, bars])


def verdict(found: Estimate, bar: float) -> str:
    """What is to be reached, and whether it is."""
    return f"{bar:.0%}, {reached(found.value >= bar)}"
