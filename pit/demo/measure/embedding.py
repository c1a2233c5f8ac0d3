"""What the pooled embedding holds, and what the base IP-Adapter draws from it."""
from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn import functional

from ..drawing.creature import sample_creature
from ..models.reader import CLASSES, Reading
from .estimates import Estimate, column_shares, mean, ratio
from .scores import HIDDEN, NAMES, border_distances, kept, targets_of
from .suite import Encoded, Laboratory
from .trials import FREE, scene_caption, whole_view

PENALTY = 1.0  # of the squared weights of the linear layer


def read_off(lab: Laboratory, fitted: int, tested: int) -> tuple[Tensor, Tensor]:
    """Attributes that one linear layer reads off embeddings, and the true ones, int64 `[tested, A]` each.

    The layer is the closed-form ridge regression from the embeddings of `fitted` fresh free mixtures to
    one-hot targets, attribute by attribute; the greatest output counts.
    """
    known, labels = embedded(lab, fitted, "embedding, fitted")
    fresh, truth = embedded(lab, tested, "embedding, tested")
    layers = [fit(known, column, classes) for column, classes in zip(labels.T, CLASSES, strict=True)]
    return torch.stack([(fresh @ layer).argmax(dim=1) for layer in layers], dim=1), truth


def fit(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The layer `[E, classes]` for one attribute `[N]`, from the rows of `x [N, E]` that show it."""
    seen = labels != HIDDEN
    return ridge(x[seen], functional.one_hot(labels[seen], classes).double())


def embedded(lab: Laboratory, count: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Embeddings of fresh free mixtures, each with a 1 behind it, `[N, 257]`, and their labels `[N, A]`."""
    rng = random.Random(f"{purpose}/{lab.seed}")
    creatures = [sample_creature(rng, FREE) for _ in range(count)]
    found = lab.chain.embed([whole_view(creature) for creature in creatures]).double()
    labels = torch.stack([targets_of(creature) for creature in creatures])
    return torch.cat([found, found.new_ones(count, 1)], dim=1), labels


def ridge(x: Tensor, y: Tensor, penalty: float = PENALTY) -> Tensor:
    """The weights `[E, C]` that minimize |x w - y|^2 + penalty |w|^2, for `x [N, E]` and `y [N, C]`."""
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]).to(x), x.T @ y)


def accuracy(found: Tensor, truth: Tensor) -> tuple[Estimate, dict[str, Estimate]]:
    """The share of values that are right where truth `[N, A]` is not -100.

    Returns:
        Its mean over the attributes, and that of each.
    """
    right, seen = found == truth, truth != HIDDEN
    return ratio(right & seen, seen), column_shares(right, seen, NAMES)


def drawn_from_embeddings(lab: Laboratory, known: Encoded) -> tuple[Reading, Estimate]:
    """Render the embeddings of creatures with "a creature", which asks for white.

    Returns:
        What is read in the pictures; and how far their borders are from white, in levels of 255.
    """
    embeddings = lab.chain.embed([whole_view(creature) for creature in known.creatures])
    captions = [scene_caption("white")] * len(embeddings)
    pictures = lab.chain.render_embeddings(embeddings, captions, lab.seed, on_batch=lab.on_pictures)
    return lab.reader.read(pictures), mean(border_distances(pictures))


def over_the_ceiling(reading: Reading, known: Encoded) -> Estimate:
    """Attributes kept, relative to the same creatures rendered from their true tokens."""
    return ratio(kept(reading, known.targets), kept(known.rendered, known.targets))
