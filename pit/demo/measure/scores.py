"""What is counted in pictures: attributes and things found, completeness, whites, entropy, distances."""
from __future__ import annotations

import random

import torch
from torch import Tensor

from ..drawing.creature import ATTRIBUTES, UNSEEN, Creature, labels, sample_creature
from ..models.reader import Reading

NAMES = list(ATTRIBUTES)
# For each attribute: the index of "none", if it has one, and the position of the style of the same part.
NONE = [options.index("none") if "none" in options else UNSEEN for options in ATTRIBUTES.values()]
STYLE_OF = [NAMES.index(name.removesuffix("_color")) for name in NAMES]
BORDER = 6  # pixels along the edges that no complete creature reaches


def targets_of(creature: Creature, parts: list[str] | None = None) -> Tensor:
    """The attributes that the parts (default: the whole creature) show, int64 `[A]`; -100 = not shown."""
    shown = [labels(creature)] if parts is None else [labels(creature, part) for part in parts]
    # -100 is below every index, so the maximum is what any of the parts shows.
    return torch.tensor(shown).amax(dim=0)


def visible(attributes: Tensor) -> Tensor:
    """Attributes as read `[N, A]`, with -100 for the colors of parts that were read as absent."""
    absent = attributes[:, STYLE_OF] == torch.tensor(NONE)[STYLE_OF]
    is_color = torch.tensor([style != index for index, style in enumerate(STYLE_OF)])
    return attributes.masked_fill(absent & is_color, UNSEEN)


def is_found(reading: Reading, targets: Tensor) -> Tensor:
    """Which of the wanted attributes each picture shows, bool `[N, A]`.

    Args:
        targets: `[N, A]` or `[A]`, -100 = not wanted.
    """
    return (visible(reading.attributes) == targets) & (targets != UNSEEN)


def kept(reading: Reading, targets: Tensor) -> Tensor:
    """The share of the wanted attributes that each picture shows, `[N]`; targets as in `is_found`.

    NaN for a picture from which nothing is wanted.
    """
    return is_found(reading, targets).sum(dim=-1) / (targets != UNSEEN).sum(dim=-1)


def is_whole(reading: Reading) -> Tensor:
    """Whether each picture shows one complete creature, `[N]`."""
    return reading.whole > 0.5


def found_things(reading: Reading) -> Tensor:
    """Which pairs of kind and color each picture shows, bool `[N, K * C]`."""
    return reading.things > 0.5


def border_distances(pictures: Tensor) -> Tensor:
    """How far the borders of pictures are from white: `[N, 3, H, W]` in 0..1 -> `[N]` in levels of 255.

    The mean of 255 - value over all channels of the pixels that are at most `BORDER` from an edge.
    """
    border = torch.ones(pictures.shape[2:], dtype=torch.bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    return 255 * (1 - pictures[:, :, border]).mean(dim=(1, 2))


def entropies(attributes: Tensor) -> Tensor:
    """Entropy of each attribute over N pictures, in nats: visible attributes `[N, A]` -> `[A]`.

    This is the plug-in estimate, which is too low for few samples: compare only equally many.
    """
    counts = [torch.unique(column, return_counts=True)[1].double() for column in attributes.T]
    shares = (count / len(attributes) for count in counts)
    return torch.stack([-(share * share.log()).sum() for share in shares])


def open_entropies(reading: Reading, targets: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """The summed entropy of the attributes that were not given, in N pictures and in N fresh free mixtures.

    Args:
        targets: the given attributes, `[A]`, -100 = not given.
        rng: draws the mixtures.
    """
    mixtures = [targets_of(sample_creature(rng, coherence=0.0)) for _ in reading.attributes]
    both = visible(reading.attributes), torch.stack(mixtures)
    ours, theirs = (entropies(attributes)[targets == UNSEEN].sum() for attributes in both)
    return ours, theirs


def joined(readings: list[Reading]) -> Reading:
    """Several readings as one, on the CPU."""
    return Reading.joined(readings).cpu()


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The Fréchet distance of features `[N, F]` and `[M, F]`, taken as normal (arXiv 1706.08500).

    It grows as samples get fewer: compare only equally many.

    Raises:
        ValueError: a set has fewer than two samples.
    """
    first, second = _checked(first), _checked(second)
    cov_first, cov_second = (torch.cov(features.T) for features in (first, second))
    between = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    # The trace of the root of a product of two covariances is the sum of the roots of its eigenvalues, which
    # are real and not negative but for rounding.
    eigenvalues = torch.linalg.eigvals(cov_first @ cov_second).real.clamp(min=0)
    return (between + cov_first.trace() + cov_second.trace() - 2 * eigenvalues.sqrt().sum()).item()


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Unbiased squared MMD with the cubic kernel of features `[N, F]` and `[M, F]` (arXiv 1801.01401).

    It is unbiased only if the two sets were drawn independently of each other.

    Raises:
        ValueError: a set has fewer than two samples.
    """
    first, second = _checked(first), _checked(second)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        # Without the diagonal: a sample compared with itself is what makes the estimate biased.
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return (within(first) + within(second) - 2 * kernel(first, second).mean()).item()


def _checked(features: Tensor) -> Tensor:
    if len(features) < 2:
        raise ValueError(f"Expected at least 2 pictures on either side of a distance, got {len(features)}.")
    # In float32, rounding in the eigenvalues and the third power would show in the result.
    return features.double()
