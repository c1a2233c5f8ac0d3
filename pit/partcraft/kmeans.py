"""Cosine k-means by the rules of TorchPQ (github.com/DeMoriarty/TorchPQ), with which the published clusters
were made; on the CPU or the GPU, in chunks."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..messages import ShortError

CHUNK = 8192  # rows at a time
REDO, MOST_ITERATIONS, TOLERANCE = 5, 1000, 1e-4  # as published


def nearest(data: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of `data [n,d]` the most similar of `centroids [k,d]`, `[n]`, and its similarity, `[n]`.

    Computed on the device of the centroids, and returned on that of the data.
    """
    found = [(_unit(rows) @ _unit(centroids).T).max(dim=1) for rows in _chunks(data, centroids.device)]
    if not found:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0)
    similarities, labels = (torch.cat(columns).to(data.device) for columns in zip(*found, strict=True))
    return labels, similarities


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.norm(dim=1, keepdim=True) + 1e-8)


def _chunks(data: Tensor, device: torch.device) -> Iterator[Tensor]:
    return (rows.to(device, torch.float32) for rows in data.split(CHUNK)) if len(data) else iter(())


def _means(data: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """The mean of the rows of each cluster, zeros for a cluster without any."""
    sums, counts = torch.zeros_like(centroids), torch.zeros(len(centroids), device=centroids.device)
    # A product, since adding at an index is not reproducible on a GPU.
    for rows, own in zip(_chunks(data, centroids.device), labels.split(CHUNK), strict=True):
        members = one_hot(own.to(centroids.device), len(centroids)).T.float()
        sums += members @ rows
        counts += members.sum(dim=1)
    return sums / counts.clamp(min=1)[:, None]


def lloyd(data: Tensor, centroids: Tensor, on_iteration: Callable[[], None] = lambda: None
          ) -> tuple[Tensor, Tensor, float]:
    """Centroids `[k,d]`, labels `[n]` and the mean similarity, from given centroids on.

    A centroid is the mean of its rows as they are, not of their directions. The labels are those before the
    last move of the centroids.

    Args:
        on_iteration: called before each iteration; what it raises ends the search.
    """
    for _ in range(MOST_ITERATIONS):
        on_iteration()
        labels, similarities = nearest(data, centroids)
        before, centroids = centroids, _means(data, labels, centroids)
        if (centroids - before).square().sum() <= TOLERANCE:
            break
    return centroids, labels, similarities.mean().item()


def _random(data: Tensor, k: int, random: np.random.RandomState) -> Tensor:
    return data[torch.from_numpy(random.choice(len(data), size=k, replace=False))]


def _spread(data: Tensor, k: int, random: np.random.RandomState) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii, 2007): each next row is drawn by how far it is from those before.

    Where many rows are equal, as the background is, random ones are often equal, and their clusters empty.
    """
    chosen = [int(random.randint(len(data)))]
    distances = np.full(len(data), np.inf)
    for _ in range(k - 1):
        similarity = nearest(data, data[chosen[-1:]].float())[1].double().numpy()
        distances = np.minimum(distances, np.clip(1 - similarity, 0, None))
        distances[chosen] = 0
        left = distances.sum()
        # Of rows that are all equal, any others will do.
        share = distances / left if left > 0 else np.isin(np.arange(len(data)), chosen, invert=True) / 1.0
        chosen.append(int(random.choice(len(data), p=share / share.sum())))
    return data[chosen]


STARTS = {"published": _random, "spread": _spread}


def cluster(
    data: Tensor, k: int, random: np.random.RandomState, device: torch.device | str = "cpu",
    on_iteration: Callable[[], None] = lambda: None, start: str = "published",
) -> tuple[Tensor, Tensor]:
    """Centroids `[k,d]` and labels `[n]` of rows `[n,d]`, both where the data is: the best of five searches.

    Args:
        random: picks the rows to begin with; NumPy's first generator, so that its seeds give the rows that
            they gave the published code.
        start: "published" begins with random rows, "spread" with rows that lie apart.
    Raises:
        ShortError: there are fewer rows than clusters.
    """
    if not 1 <= k <= len(data):
        raise ShortError(f"Expected 1 to {len(data)} clusters of {len(data)} rows, got {k}. Ask for fewer.")
    best: tuple[Tensor, Tensor] | None = None
    highest = -float("inf")
    for _ in range(REDO):
        first = STARTS[start](data, k, random)
        centroids, labels, similarity = lloyd(data, first.to(device, torch.float32), on_iteration)
        if best is None or similarity > highest:
            best, highest = (centroids.to(data.device), labels), similarity
    return best
