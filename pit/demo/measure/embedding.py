"""What the pooled embedding holds, and what the base IP-Adapter draws from it."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..drawing.creature import UNSEEN
from ..drawing.draw import whole_view
from ..models.reader import CLASSES, Reading
from ..training.data import ALONE
from ..training.truth import truth_of
from .estimates import Estimate, column_shares, mean, ratio
from .pictures import batches, drawn, fresh_pictures
from .scores import NAMES, border_distances, kept
from .suite import Encoded, Laboratory
from .trials import scene_caption

PENALTY = 1.0  # of the squared weights of the linear layer


def read_off(lab: Laboratory, fitted: int, tested: int, kind: str) -> tuple[Tensor, Tensor]:
    """Attributes that one linear layer reads off embeddings, and the true ones, int64 `[tested, A]` each.

    The layer is the closed-form ridge regression from the embeddings of `fitted` fresh pictures of a kind to
    one-hot targets, attribute by attribute; the greatest output counts.
    """
    known, labels = embedded(lab, fitted, kind, "embedding, fitted")
    fresh, truth = embedded(lab, tested, kind, "embedding, tested")
    layers = [fit(known, column, classes) for column, classes in zip(labels.T, CLASSES, strict=True)]
    return torch.stack([(fresh @ layer).argmax(dim=1) for layer in layers], dim=1), truth


def fit(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The layer `[E, classes]` for one attribute `[N]`, from the rows of `x [N, E]` that show it."""
    seen = labels != UNSEEN
    return ridge(x[seen], functional.one_hot(labels[seen], classes).double())


def embedded(lab: Laboratory, count: int, kind: str, purpose: str) -> tuple[Tensor, Tensor]:
    """Embeddings of fresh free mixtures, each with a 1 behind it, `[N, 257]`, and their labels `[N, A]`.

    Args:
        kind: of the pictures, one of `KINDS`; creatures alone stand on white.
    """
    shown = fresh_pictures(lab.seed, kind, count, purpose)
    views = drawn(each.composition for each in shown)
    if kind == ALONE:
        views = (whole_view(each.creature) for each in shown)
    found = torch.cat([lab.chain.embed(batch) for batch in batches(views)]).double()
    return torch.cat([found, found.new_ones(count, 1)], dim=1), truth_of(shown).labels


def ridge(x: Tensor, y: Tensor, penalty: float = PENALTY) -> Tensor:
    """The weights `[E, C]` that minimize |x w - y|^2 + penalty |w|^2, for `x [N, E]` and `y [N, C]`."""
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]).to(x), x.T @ y)


def accuracy(found: Tensor, truth: Tensor) -> tuple[Estimate, dict[str, Estimate]]:
    """The share of values that are right where truth `[N, A]` is not -100.

    Returns:
        Its mean over the attributes, and that of each.
    """
    right, seen = found == truth, truth != UNSEEN
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


def over_the_ceiling(lab: Laboratory, reading: Reading, known: Encoded) -> Estimate:
    """Attributes kept, relative to the same creatures rendered on white from their true tokens."""
    ceiling = lab.render(known.tokens, [scene_caption("white")] * len(known.tokens))
    return ratio(kept(reading, known.targets), kept(ceiling, known.targets))
