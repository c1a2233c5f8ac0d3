"""The parts of a collection of pictures, by clusters of what DINOv2 sees at each place (arXiv 2407.04604).

Three levels: each place is foreground or background; each place of the foreground belongs to a part; and
each part of each picture belongs to one of K codes.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..messages import ShortError
from .kmeans import cluster, nearest
from .prompt import Part, PartWord, Vocabulary

PARTS, CODES, SAMPLE, SEED = 8, 256, 100, 42  # as published
PICTURES = 32  # at a time
BACKGROUND = -1.0  # what stands in each place of the background when parts are told apart

Features = Callable[[Sequence[int]], Tensor]
"""The features `[n,d,h,w]` of the pictures with these numbers."""


@dataclass(frozen=True)
class PartClusters:
    """Where parts lie among the features of an image encoder.

    Attributes:
        foreground_background: two centroids, `[2,d]`.
        coarse: a centroid for each part, `[M,d]`.
        fine: a centroid for each code of each part, `[M,K,d]`; zeros where a part has fewer.
        foreground: which of the two is the foreground.
        background_part: the part that the background is.
        names: what people call the parts and their codes; None as long as nobody has named them.
    """

    foreground_background: Tensor
    coarse: Tensor
    fine: Tensor
    foreground: int
    background_part: int
    names: Vocabulary | None = None

    @property
    def absent(self) -> int:
        """The code of a part that a picture lacks: the one after the last."""
        return self.fine.shape[1]

    @property
    def vocabulary(self) -> Vocabulary:
        """The names, or numbers in their place; codes without a centroid have no words."""
        if self.names is not None:
            return self.names
        counts = (self.fine != 0).any(dim=-1).sum(dim=1).tolist()
        return Vocabulary(tuple(
            Part("background" if part == self.background_part else f"part{part}", count, named=False)
            for part, count in enumerate(counts)
        ))

    def to(self, device: torch.device | str) -> PartClusters:
        """The same, on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("foreground_background", "coarse", "fine")}
        return replace(self, **moved)


@dataclass(frozen=True)
class Parts:
    """The parts of pictures.

    Attributes:
        near: which of the two centroids each place is near, `[N,h,w]`.
        labels: the part of each place, `[N,h,w]`.
        features: the mean of each part, `[N,M,d]`; zeros where it is absent.
    """

    near: Tensor
    labels: Tensor
    features: Tensor

    def masks(self) -> Tensor:
        """1 where a part is, `[N,M,h,w]`."""
        numbers = torch.arange(self.features.shape[1], device=self.labels.device)
        return (self.labels[:, None] == numbers[:, None, None]).float()

    def appeared(self) -> list[list[int]]:
        """The parts of each picture."""
        return [labels.unique().tolist() for labels in self.labels]

    def places(self) -> Tensor:
        """The middle of each part, `[N,M,2]`: row and column from 0 to 1; 0 where it is absent."""
        height, width = self.labels.shape[1:]
        masks = self.masks()
        rows = (torch.arange(height, device=masks.device) + 0.5) / height
        columns = (torch.arange(width, device=masks.device) + 0.5) / width
        counts = masks.sum(dim=(2, 3)).clamp(min=1)
        middles = (masks.sum(dim=3) @ rows / counts, masks.sum(dim=2) @ columns / counts)
        return torch.stack(middles, dim=-1)


@dataclass(frozen=True)
class Discovery:
    """What has been found.

    Attributes:
        codes: of each part of each picture, `[N,M]`; K where it is absent.
        notes: what to know about it, in sentences.
    """

    clusters: PartClusters
    codes: Tensor
    notes: tuple[str, ...]


def find_parts(features: Tensor, clusters: PartClusters) -> Parts:
    """The parts of pictures with the features `[N,d,h,w]`, computed on the device of the clusters.

    Raises:
        ShortError: the features are those of another encoder, or are not finite.
    """
    _check(features, clusters.coarse.shape[1], range(len(features)))
    # One row for each place.
    rows = features.float().movedim(1, -1)
    near = _nearest(rows, clusters.foreground_background)
    return _parts(rows, near, clusters.coarse, clusters.foreground, clusters.background_part)


def _parts(rows: Tensor, near: Tensor, coarse: Tensor, foreground: int, background_part: int) -> Parts:
    behind = near != foreground
    labels = _nearest(_without(rows, behind), coarse)
    means = _means(rows, torch.stack([labels == part for part in range(len(coarse))], dim=1))
    # As published: the background is described by its places at the first level.
    means[:, background_part] = _means(rows, behind[:, None])[:, 0]
    return Parts(near, labels, means)


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    return nearest(rows.flatten(0, -2), centroids)[0].reshape(rows.shape[:-1])


def _without(rows: Tensor, behind: Tensor) -> Tensor:
    return rows.masked_fill(behind[..., None], BACKGROUND)


def _means(rows: Tensor, masks: Tensor) -> Tensor:
    """The mean over each mask of `[N,M,h,w]` of features `[N,h,w,d]`, `[N,M,d]`; zeros for an empty one."""
    means = rows.new_zeros(*masks.shape[:2], rows.shape[-1])
    for picture, part in masks.flatten(2).any(dim=-1).nonzero().tolist():
        means[picture, part] = rows[picture][masks[picture, part]].mean(dim=0)
    return means


def codes_of(parts: Parts, clusters: PartClusters) -> Tensor:
    """The code of each part of each picture, `[N,M]`; K where it is absent."""
    codes = torch.stack([
        nearest(parts.features[:, part], centroids)[0] for part, centroids in enumerate(clusters.fine)
    ], dim=1)
    # A part of zeros is as near to each centroid, so that its code would be 0.
    return codes.masked_fill((parts.features == 0).all(dim=-1), clusters.absent)


def caption(codes: Sequence[int], absent: int, without: Sequence[int] = ()) -> str:
    """The codes of a picture as the published captions write them, `0:65 2:246`, without some parts."""
    return " ".join(
        f"{part}:{code}" for part, code in enumerate(codes) if code != absent and part not in without
    )


def words_in(codes: Sequence[int], absent: int, without: Sequence[int] = ()) -> list[PartWord]:
    """The part words of a picture, in the order of the parts."""
    return [
        PartWord(part, (code,)) for part, code in enumerate(codes) if code != absent and part not in without
    ]


class Search(NamedTuple):
    """How clusters are searched for; each level begins with the seed again, as published."""

    seed: int
    device: torch.device | str
    start: str
    on_iteration: Callable[[], None]

    def level(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Centroids `[k,d]` of the places of pictures `[N,h,w,d]`, and the label of each, `[N,h,w]`."""
        centroids, labels = self._cluster(rows.flatten(0, -2), k, np.random.RandomState(self.seed))
        return centroids, labels.reshape(rows.shape[:-1])

    def fine(self, means: Tensor, codes: int) -> tuple[Tensor, Tensor]:
        """Centroids of codes `[M,K,d]` of parts `[N,M,d]`, and the code of each, `[N,M]`.

        Pictures that lack a part are left out. The published code clusters zeros in their place, and drops
        the codes that came of it afterwards.
        """
        count, parts, width = means.shape
        fine, numbers = torch.zeros(parts, codes, width), torch.full((count, parts), codes)
        random = np.random.RandomState(self.seed)
        for part in range(parts):
            there = (means[:, part] != 0).any(dim=-1)
            if there.any():
                k = min(codes, int(there.sum()))
                fine[part, :k], numbers[there, part] = self._cluster(means[there, part], k, random)
        return fine, numbers

    def _cluster(self, rows: Tensor, k: int, random: np.random.RandomState) -> tuple[Tensor, Tensor]:
        return cluster(rows, k, random, self.device, self.on_iteration, self.start)


def discover(
    features: Features, count: int, parts: int = PARTS, codes: int = CODES, *, seed: int = SEED,
    foreground: int | None = None, device: torch.device | str = "cpu", start: str = "published",
    on_iteration: Callable[[], None] = lambda: None,
) -> Discovery:
    """Find the parts of a collection of pictures and their codes.

    The parts are found on 100 pictures, the codes on all; features are asked for a few pictures at a time.

    Args:
        count: of the pictures.
        parts, codes: M, with the background, and K.
        foreground: which of the two clusters of the first level is the foreground; found by itself if None.
        start: how each search begins, see `cluster`.
        on_iteration: called before each step; what it raises ends the search.
    Raises:
        ShortError: too few pictures, all of them alike, or features that are not finite.
    """
    if parts < 2 or not 1 <= codes <= count:
        raise ShortError(
            f"Expected 2 or more parts and 1 to {count} codes for {count} pictures, got {parts} parts and "
            f"{codes} codes. Each code needs a picture of its own: ask for fewer, or add pictures."
        )
    search = Search(seed, device, start, on_iteration)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:SAMPLE].tolist()
    sample = torch.cat([rows for rows in _rows(features, chosen, on_iteration)])
    pair, near = search.level(sample, 2)
    front, notes = _foreground(near) if foreground is None else (foreground, ())
    behind = near != front
    if behind.all() or not behind.any():
        raise ShortError(
            "Expected pictures of something before a background, got pictures that look alike at every "
            "place. Take pictures that show more than one color."
        )
    coarse, _ = search.level(_without(sample, behind), parts)
    back = background_of(coarse)
    found = torch.cat([
        _parts(rows, _nearest(rows, pair.to(device)), coarse.to(device), front, back).features
        for rows in _rows(features, range(count), on_iteration)
    ])
    fine, numbers = search.fine(found, codes)
    clusters = PartClusters(pair, coarse, fine, front, back)
    return Discovery(clusters, numbers, (*notes, *_scarce(clusters, numbers)))


def _scarce(clusters: PartClusters, numbers: Tensor) -> Iterator[str]:
    """A note for each part that fewer pictures have than there are to be codes."""
    counts = (numbers != clusters.absent).sum(dim=0).tolist()
    for part, count in zip(clusters.vocabulary.parts, counts, strict=True):
        if count < clusters.absent:
            yield f"The part {part.name} is in {count} of {len(numbers)} pictures, and has as many codes."


def usual_codes(count: int) -> int:
    """How many codes a collection of so many pictures is good for: four pictures for each, 256 at most."""
    return min(CODES, max(1, count // 4))


def background_of(coarse: Tensor) -> int:
    """The part that the background is: the one near what stands in its places."""
    return int(nearest(coarse.new_full((1, coarse.shape[1]), BACKGROUND), coarse)[0])


def _rows(features: Features, numbers: Sequence[int], on_step: Callable[[], None]) -> Iterator[Tensor]:
    """The features of pictures, `[n,h,w,d]` a few at a time, in float32 on the CPU."""
    sizes: list[int] = []
    for start in range(0, len(numbers), PICTURES):
        on_step()
        chosen = list(numbers[start:start + PICTURES])
        chunk = features(chosen)
        sizes = sizes or [len(chunk), *chunk.shape[1:]]
        if list(chunk.shape) != [len(chosen), *sizes[1:]]:
            raise ShortError(
                f"Expected features {[len(chosen), *sizes[1:]]} for {len(chosen)} pictures, as for those "
                f"before, got {list(chunk.shape)}. Show the encoder all pictures in one size."
            )
        _check(chunk, sizes[1] if len(sizes) == 4 else 0, chosen)
        yield chunk.float().movedim(1, -1).cpu()


def _check(features: Tensor, width: int, numbers: Sequence[int]) -> None:
    if features.ndim != 4 or features.shape[1] != width or 0 in features.shape:
        raise ShortError(
            f"Expected features [N,{width or 'd'},h,w] of the encoder that the parts were found with, got "
            f"{list(features.shape)}. Take the same encoder."
        )
    finite = features.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        wrong = numbers[int(finite.int().argmin())]
        raise ShortError(
            f"Expected finite features, got NaN or infinity for picture {wrong}. "
            "Run the encoder in fp32, or leave the picture out."
        )


def _foreground(near: Tensor) -> tuple[int, tuple[str, ...]]:
    """Which of two clusters is the foreground: the one that is rarer at the border than inside it."""
    border = torch.zeros(near.shape[1:], dtype=torch.bool)
    border[[0, -1]] = True
    border[:, [0, -1]] = True
    second = (near == 1).float()
    if border.all():
        return 0, ("The grid is all border, so that the foreground was not found but taken for the first "
                   "cluster. Choose it by hand if it is the other one.",)
    more_inside = float(second[:, ~border].mean() - second[:, border].mean())
    if more_inside == 0:
        return 0, ("Border and inside look alike, so that the foreground was taken for the first cluster. "
                   "Choose it by hand if it is the other one.",)
    return int(more_inside > 0), ()
