"""Directions in the spaces of concepts: found from two sets of pictures, measured, combined, and applied.

Source of the difference of means and of its use: Piece it Together (arXiv 2503.10365), the scripts for
directions in github.com/eladrich/PiT. A direction lies in token space, `[16, D]`, in CLIP space, that of the
penultimate features `[N, E]` that the resampler reads, or among image embeddings, `[1, E]`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..files.records import STAMP_DIGITS, Made, answers_differ
from .concepts import check_room

TOKEN_SPACE, CLIP_SPACE, EMBEDDING_SPACE = "tokens", "clip", "embedding"
FOLDS = 5
FARTHEST = 3.0  # of the distance between the classes, however noisy the direction is

Method = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Direction(Made):
    """A direction, and what is known of it.

    Attributes:
        values: `[16, D]` in token space, `[N, E]` in CLIP space, `[1, E]` among embeddings.
        space: `TOKEN_SPACE`, `CLIP_SPACE` or `EMBEDDING_SPACE`.
        deviation: the amount that is one standard deviation of the pictures of a class; None = not known.
        recommended: the amount from the middle of one class to that of the other; None = not known.
        negative: what tells the encoder of embeddings, as they have it `[1, E]`; None = not known.
    """

    values: Tensor
    space: str
    deviation: float | None = None
    recommended: float | None = None
    negative: Tensor | None = None


@dataclass(frozen=True)
class Separation:
    """Where pictures of two classes lie along directions that were found without them, by cross-validation.

    Attributes:
        first, second: places of the pictures of each class; 0 is halfway between the classes.
        gap: distance between the two classes, in the units of the tokens.
        deviation: standard deviation of the pictures of a class.
    """

    first: Tensor
    second: Tensor
    gap: float
    deviation: float

    @property
    def accuracy(self) -> float:
        """Share of the pictures that are on the side of their class; both classes count the same."""
        shares = (self.first < 0).double().mean(), (self.second > 0).double().mean()
        return ((shares[0] + shares[1]) / 2).item()


def find_direction(a_tokens: Tensor, b_tokens: Tensor) -> Tensor:
    """The published direction from class a to class b: mean of b minus mean of a.

    Args:
        a_tokens, b_tokens: `[A, T, D]` and `[B, T, D]`, in token space or in CLIP space.
    Returns:
        `[T, D]` float32.
    Raises:
        ValueError: a class is empty, or the two have different shapes.
    """
    _check_classes(a_tokens, b_tokens, 1)
    return (_mean(b_tokens) - _mean(a_tokens)).float()


def shrunken_direction(a_tokens: Tensor, b_tokens: Tensor) -> Tensor:
    """The difference of means with most of its noise removed; it needs fewer pictures.

    The difference of two sample means is the true difference plus noise of covariance c S, where S is the
    covariance within the classes and c = 1 / A + 1 / B. With a prior of variance t in every dimension, the
    expected true difference is (I + (c / t) S)^-1 times the measured one: a linear discriminant with
    shrinkage (Friedman, "Regularized Discriminant Analysis", 1989), where t follows from the length of the
    measured difference.

    Arguments, result and errors as in `find_direction`.
    """
    difference, within = find_direction(a_tokens, b_tokens).flatten(), _within(a_tokens, b_tokens)
    noise, degrees = _noise(a_tokens, b_tokens, within)
    length = difference.double().square().sum().item()
    if not length or not noise:
        return difference.view(a_tokens.shape[1:])
    # The squared length is that of the true difference, t in each dimension, plus that of the noise. Where
    # chance makes the noise look longer than the whole, a small share is left to the true difference.
    prior = max(length - noise, 0.02 * length) / difference.numel()
    scale = (1 / len(a_tokens) + 1 / len(b_tokens)) / degrees / prior
    # By Woodbury's identity there are as many equations as pictures, not as many as dimensions, of which
    # there are 32,768 at the published width. In float64: with much noise it is badly conditioned.
    system = torch.eye(len(within), dtype=torch.float64) + scale * (within @ within.T).double()
    weights = torch.linalg.solve(system, (within @ difference).double()).float()
    return (difference - scale * (weights @ within)).view(a_tokens.shape[1:])


METHODS: dict[str, Method] = {"shrinkage": shrunken_direction, "difference of means": find_direction}


def measured_direction(
    a_tokens: Tensor, b_tokens: Tensor, method: str, space: str, source: str, adapter: str = "",
    on_fold: Callable[[], None] = lambda: None,
) -> tuple[Direction, Separation]:
    """The direction from class a to class b with all that is known of it, and how well it separates them.

    For the difference of means, an amount of 1 is the difference, as published; for the other method it is
    the way from the middle of one class to the middle of the other, as far as the pictures tell.

    Args:
        method: one of `METHODS`.
        on_fold: called for each of at most `FOLDS` folds; may raise to cancel.
    Raises:
        ValueError: a class has fewer than two pictures, both hold the same ones, or their shapes differ.
    """
    _check_classes(a_tokens, b_tokens, 2)
    difference = find_direction(a_tokens, b_tokens).double().square().sum().item()
    # Not compared with 0: the same pictures in another order have means that differ in their last digits.
    if difference <= 1e-12 * _mean(a_tokens.float().square()).sum().item():
        raise ValueError(
            "Expected two classes of different pictures, got the same pictures in both, so that no direction "
            "leads from one to the other."
        )
    find = METHODS[method]
    values, found = find(a_tokens, b_tokens), separation(a_tokens, b_tokens, find, on_fold=on_fold)
    noise, _ = _noise(a_tokens, b_tokens, _within(a_tokens, b_tokens))
    # A direction found from few pictures is at an angle to the true one, and the gap is the true distance
    # times the cosine. Covering the true distance along it takes that distance over the cosine: the squared
    # distance over the gap. The squared distance is the measured one minus its noise.
    way = max(difference - noise, 0.0) / found.gap if found.gap > 0 else 0.0
    length = values.double().norm().item()
    way = min(max(way, abs(found.gap)), FARTHEST * abs(found.gap)) or length
    if find is not find_direction:
        values, length = values * (way / length), way
    notes = {
        "method": method, "pictures": f"{len(a_tokens)} and {len(b_tokens)}",
        "separation": f"{found.accuracy:.4f}",
    }
    deviation, recommended = found.deviation / length, way / length
    direction = Direction(
        values, space, deviation, recommended, source=source, adapter=adapter, notes=notes
    )
    return direction, found


def separation(
    a_tokens: Tensor, b_tokens: Tensor, method: Method, folds: int = FOLDS,
    on_fold: Callable[[], None] = lambda: None,
) -> Separation:
    """Cross-validation: each picture is placed along a direction that was found without it.

    Raises:
        ValueError: a class has fewer than two pictures, or their shapes differ.
    """
    _check_classes(a_tokens, b_tokens, 2)
    folds = min(folds, len(a_tokens), len(b_tokens))
    places: tuple[list[Tensor], list[Tensor]] = ([], [])
    for fold in range(folds):
        on_fold()
        kept, held = zip(*(_split(tokens, fold, folds) for tokens in (a_tokens, b_tokens)), strict=True)
        unit = method(*kept).flatten()
        unit = unit / unit.norm().clamp(min=1e-30)
        middle = sum((_mean(tokens).float().flatten() @ unit).item() for tokens in kept) / 2
        for side, tokens in zip(places, held, strict=True):
            side.append((tokens.float().flatten(1) @ unit).double() - middle)
    # The means of the pictures that chose the direction are too far apart, the more so the fewer there are.
    # So gap, middle and deviation come from the held-out ones; two fitted means are two degrees less.
    first, second = (torch.cat(side) for side in places)
    means = first.mean(), second.mean()
    squares = sum((side - mean).square().sum() for side, mean in zip((first, second), means, strict=True))
    deviation = (squares / max(1, len(first) + len(second) - 2)).sqrt().item()
    middle = (means[0] + means[1]) / 2
    return Separation(first - middle, second - middle, (means[1] - means[0]).item(), deviation)


def apply_direction(tokens: Tensor, direction: Tensor, amount: float | Tensor) -> Tensor:
    """`tokens + amount * direction`, as published, for tokens or features `[B, T, D]`, in the same shape.

    Raises:
        ValueError: the direction has another shape than the tokens.
    """
    if tokens.shape[-2:] != direction.shape[-2:]:
        raise ValueError(
            f"Expected a direction of the shape {list(tokens.shape[-2:])}, as what it is to change, got the "
            f"shape {list(direction.shape)}. Use one that was found with the same encoder and IP-Adapter."
        )
    return tokens + amount * direction.to(tokens)


def apply_amounts(tokens: Tensor, direction: Tensor, amounts: Sequence[float]) -> Tensor:
    """All sets at the first amount, then all at the second, and so on: `[len(amounts) * B, T, D]`.

    Raises ValueError for more sets than there is room for.
    """
    check_room(len(amounts) * len(tokens), tokens)
    return torch.cat([apply_direction(tokens, direction, amount) for amount in amounts])


def raw_amounts(direction: Direction, amounts: Sequence[float]) -> list[float]:
    """Amounts given in standard deviations of a class, converted to multiples of the direction.

    Raises:
        ValueError: the direction does not know its deviation.
    """
    if direction.deviation is None:
        raise ValueError(
            f"Expected a direction with a known deviation, for amounts in standard deviations, got "
            f"{direction.source}, which does not say how far the pictures of a class spread. Give raw "
            "amounts, or find the direction from pictures."
        )
    return [amount * direction.deviation for amount in amounts]


def only_tokens(direction: Direction, numbers: Iterable[int]) -> Direction:
    """The direction restricted to these tokens, counted from 1, and zero at all others.

    Raises:
        ValueError: there is no such token.
    """
    count = len(direction.values)
    mask = torch.zeros(count, 1)
    # One by one: a range that a user types may be endless, and reading stops at the first number too high.
    for number in numbers:
        if not 1 <= number <= count:
            raise ValueError(f"Expected tokens from 1 to {count}, as in the direction, got {number}.")
        mask[number - 1] = 1
    return replace(direction, values=direction.values * mask)


def combined(first: Direction, second: Direction, weight_first: float, weight_second: float) -> Direction:
    """The weighted sum of both directions. Raises ValueError if they lie in different spaces."""
    _check_pair(first, second)
    values = weight_first * first.values + weight_second * second.values
    return _made_of(first, second, values, f"{weight_first:g} x first + {weight_second:g} x second")


def orthogonal(first: Direction, second: Direction) -> Direction:
    """What is left of the first without moving along the second: "more muscular, of the same color".

    Raises:
        ValueError: they lie in different spaces, or nothing is left because both point the same way.
    """
    _check_pair(first, second)
    a, b = first.values.double(), second.values.double()
    length = b.square().sum()
    left = a - (a * b).sum() / length * b if length else a
    if left.norm() <= 1e-5 * a.norm():
        raise ValueError(
            f"Expected two directions that point different ways, got {first.source} and {second.source}, of "
            "which nothing is left of one without the other. Choose another second direction."
        )
    return _made_of(first, second, left.float(), "first without second")


def _made_of(first: Direction, second: Direction, values: Tensor, how: str) -> Direction:
    # Deviation and recommended amount are not carried over: they were measured along another direction.
    notes = {"made of": how, "first": first.source, "second": second.source}
    return Direction(
        values, first.space, source=f"Combine IP+ Directions ({how})",
        adapter=first.adapter or second.adapter, notes=notes,
        negative=second.negative if first.negative is None else first.negative,
    )


def _check_pair(first: Direction, second: Direction) -> None:
    if (first.space, first.values.shape) != (second.space, second.values.shape):
        described = (f"{each.source} in {each.space} space with the shape {list(each.values.shape)}"
                     for each in (first, second))
        raise ValueError(
            f"Expected two directions in one space, got {' and '.join(described)}. Use two that were found "
            "in the same space."
        )
    if first.of_another_adapter(second):
        raise ValueError(
            f"Expected two directions found with one IP-Adapter, got {first.source} and {second.source}, "
            f"found with {first.adapter[:STAMP_DIGITS]} and {second.adapter[:STAMP_DIGITS]}. Use two that "
            "were found with the same one."
        )
    if answers_differ(first.negative, second.negative):
        raise ValueError(
            f"Expected two directions of one image encoder, got {first.source} and {second.source}, found "
            "with different ones. Use two that were found with the same one."
        )


def _check_classes(a_tokens: Tensor, b_tokens: Tensor, least: int) -> None:
    for name, tokens in (("first", a_tokens), ("second", b_tokens)):
        if len(tokens) < least:
            raise ValueError(
                f"Expected at least {least} of each class of pictures, got {_count(len(tokens))} in the "
                f"{name} class. Add some; 16 or more of each are better."
            )
    if a_tokens.shape[1:] != b_tokens.shape[1:]:
        raise ValueError(
            f"Expected two classes of one shape, got {list(a_tokens.shape[1:])} and "
            f"{list(b_tokens.shape[1:])}. Encode both with the same encoder and IP-Adapter."
        )


def _count(pictures: int) -> str:
    return {0: "no picture", 1: "one picture"}.get(pictures, f"{pictures} pictures")


def _mean(tokens: Tensor) -> Tensor:
    # In float64: the classes' means are close to each other, and their difference is what is looked for.
    return tokens.mean(dim=0, dtype=torch.float64)


def _within(a_tokens: Tensor, b_tokens: Tensor) -> Tensor:
    """Every picture minus the mean of its class, `[A + B, T * D]` float32."""
    return torch.cat([(each - _mean(each)).float().flatten(1) for each in (a_tokens, b_tokens)])


def _noise(a_tokens: Tensor, b_tokens: Tensor, within: Tensor) -> tuple[float, int]:
    """Squared length that chance alone adds to a difference of means, and the degrees of freedom."""
    # The trace of c S: all variance within the classes, divided by the number of pictures in each mean.
    degrees = max(1, len(within) - 2)
    variance = within.square().sum(dtype=torch.float64).item() / degrees
    noise = variance * (1 / len(a_tokens) + 1 / len(b_tokens))
    return noise, degrees


def _split(tokens: Tensor, fold: int, folds: int) -> tuple[Tensor, Tensor]:
    """The sets without every `folds`-th one, counted from number `fold`, and those left out."""
    # Spread out, not in blocks: pictures that follow each other in a folder are often alike.
    held = torch.arange(len(tokens)) % folds == fold
    return tokens[~held], tokens[held]
