"""Other ways from parts to tokens, which the prior has to beat."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..drawing.draw import draw_part, whole_view
from ..models.sizes import ENCODER_SIZE
from ..training import TRAINING_SEED
from ..training.data import training_creature
from .suite import PUBLISHED, UNGUIDED, Laboratory, Sampling
from .trials import Trial

Method = Callable[[Laboratory, list[Trial]], Tensor]
# Of the side of the square: a part fills 90% of its picture, which Encode IP+ Parts places at 92% on white.
PART_SHARE = 0.83


def part_tokens(lab: Laboratory, trials: list[Trial]) -> list[Tensor]:
    """The tokens of each trial's parts, `[P, 16, D]` each."""
    return [lab.chain.encode_parts(trial.part_pictures()) for trial in trials]


def mean_of_part_tokens(lab: Laboratory, trials: list[Trial]) -> Tensor:
    """The mean of the part tokens, `[N, 16, D]`."""
    return torch.stack([parts.mean(dim=0) for parts in part_tokens(lab, trials)])


def concatenated_part_tokens(lab: Laboratory, trials: list[Trial]) -> Tensor:
    """All part tokens side by side in the cross-attention, `[N, 16 P, D]`."""
    return torch.stack([parts.flatten(0, 1) for parts in part_tokens(lab, trials)])


def nearest_training_creature(known: int) -> Method:
    """The true tokens of the training creature whose parts lie nearest to the given ones in IP+ space.

    Args:
        known: how many creatures of the training set are searched.
    """
    def tokens(lab: Laboratory, trials: list[Trial]) -> Tensor:
        # The comparisons of 2 and of 5 parts search the same creatures.
        theirs, owners = lab.once(("training parts", known), lambda: training_parts(lab, known))
        chosen = [nearest_owner(parts.flatten(1), theirs, owners) for parts in part_tokens(lab, trials)]
        views = [whole_view(training_creature(TRAINING_SEED, index)) for index in chosen]
        return lab.chain.encode(views)

    return tokens


def training_parts(lab: Laboratory, known: int) -> tuple[Tensor, Tensor]:
    """Tokens of every part of the first training creatures, `[K, F]`, and the creature of each, `[K]`."""
    tokens, owners = [], []
    for index in range(known):
        creature = training_creature(TRAINING_SEED, index)
        views = [draw_part(creature, part, ENCODER_SIZE, share=PART_SHARE) for part in creature.parts]
        tokens.append(lab.chain.encode(views).flatten(1))
        owners += [index] * len(views)
    return torch.cat(tokens), torch.tensor(owners)


def nearest_owner(parts: Tensor, known: Tensor, owners: Tensor) -> int:
    """The owner whose parts are nearest to the parts `[P, F]`, by the sum of squared distances.

    Args:
        known: the parts of all owners, `[K, F]`.
        owners: the owner of each of these, `[K]`.
    """
    apart = torch.cdist(parts, known).square()
    best = torch.full((len(parts), int(owners.max()) + 1), torch.inf)
    best.scatter_reduce_(1, owners.expand(len(parts), -1), apart, "amin")
    return int(best.sum(dim=0).argmin())


def by_the_prior(sampling: Sampling) -> Method:
    """The prior with other settings of its sampler."""
    return lambda lab, trials: lab.sample(lab.conditions(trials), sampling)


def rivals(known: int) -> dict[str, Method]:
    """All ways from parts to tokens that the recommended prior is compared with, by name."""
    return {
        "prior, published settings": by_the_prior(PUBLISHED),
        "prior, no guidance": by_the_prior(UNGUIDED),
        "mean of the part tokens": mean_of_part_tokens,
        "part tokens concatenated": concatenated_part_tokens,
        f"nearest of {known} training creatures": nearest_training_creature(known),
    }
