"""Directions in IP+ space: found from two sets of pictures, measured, combined, and applied.

Source of the difference of means and of its use: Piece it Together (arXiv 2503.10365), the scripts for
directions of github.com/eladrich/PiT. A direction lies either in token space, `[16, D]`, or in CLIP space,
that of the penultimate features `[N, E]` that the resampler reads.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..files.records import Made

TOKEN_SPACE, CLIP_SPACE = "tokens", "clip"
FOLDS = 5
FARTHEST = 3.0  # of the distance between the classes, however noisy the direction is

Method = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Direction(Made):
    """A direction, and what is known of it.

    Attributes:
        values: `[16, D]` in token space, `[N, E]` in CLIP space.
        space: `TOKEN_SPACE` or `CLIP_SPACE`.
        deviation: the amount that is one standard deviation of the pictures of a class; None = not known.
        recommended: the amount from the middle of one class to that of the other; None = not known.
    """

    values: Tensor
    space: str
    deviation: float | None = None
    recommended: float | None = None


@dataclass(frozen=True)
class Separation:
    """How pictures of two classes lie along directions that were found without them, by cross-validation.

    Attributes:
        first, second: places of the pictures of each class; 0 is half-way between the classes.
        gap: distance of the two classes, in the units of the tokens.
        deviation: standard deviation of the pictures of a class.
    """

    first: Tensor
    second: Tensor
    gap: float
    deviation: float

    @property
    def accuracy(self) -> float:
        """Share of the pictures on the side of their class, both classes counted alike."""
        shares = (self.first < 0).double().mean(), (self.second > 0).double().mean()
        return ((shares[0] + shares[1]) / 2).item()


def find_direction(a_tokens: Tensor, b_tokens: Tensor) -> Tensor:
    """The published direction from class a to class b: mean of b minus mean of a.

    Args:
        a_tokens, b_tokens: `[A, T, D]` and `[B, T, D]`, of token space or of CLIP space.
    Returns:
        `[T, D]` float32.
    Raises:
        ValueError: a class is empty, or the two are of different shapes.
    """
    _check_classes(a_tokens, b_tokens, 1)
    return (_mean(b_tokens) - _mean(a_tokens)).float()


def shrunken_direction(a_tokens: Tensor, b_tokens: Tensor) -> Tensor:
    """The difference of means without most of its chance; it needs fewer pictures.

    A difference of means is the true one and noise of covariance c S, where S is the covariance within the
    classes and c = 1 / A + 1 / B. With a prior of variance t in every dimension for the true one, what is to
    be expected of it is (I + (c / t) S)^-1 times the difference: a linear discriminant with shrinkage
    (Friedman, "Regularized Discriminant Analysis", 1989), whose t follows from the length of the difference.

    Arguments, result and errors as in `find_direction`.
    """
    difference, within = find_direction(a_tokens, b_tokens).flatten(), _within(a_tokens, b_tokens)
    noise, degrees = _noise(a_tokens, b_tokens, within)
    length = difference.double().square().sum().item()
    if not length or not noise:
        return difference.view(a_tokens.shape[1:])
    prior = max(length - noise, 0.02 * length) / difference.numel()
    scale = (1 / len(a_tokens) + 1 / len(b_tokens)) / degrees / prior
    # By the identity of Woodbury: as many equations as there are pictures, not as there are dimensions.
    system = torch.eye(len(within), dtype=torch.float64) + scale * (within @ within.T).double()
    weights = torch.linalg.solve(system, (within @ difference).double()).float()
    return (difference - scale * (weights @ within)).view(a_tokens.shape[1:])


METHODS: dict[str, Method] = {"shrinkage": shrunken_direction, "difference of means": find_direction}


def measured_direction(
    a_tokens: Tensor, b_tokens: Tensor, method: str, space: str, source: str, adapter: str = "",
    on_fold: Callable[[], None] = lambda: None,
) -> tuple[Direction, Separation]:
    """The direction from class a to class b with all that is known of it, and how well it separates them.

    Of the difference of means, an amount of 1 is the difference, as published; of the other method, the way
    from the middle of one class to that of the other, as far as the pictures tell.

    Args:
        method: one of `METHODS`.
        on_fold: is called for each of at most `FOLDS` folds; may raise to cancel.
    Raises:
        ValueError: a class has fewer than two pictures, both are the same, or their shapes differ.
    """
    _check_classes(a_tokens, b_tokens, 2)
    difference = find_direction(a_tokens, b_tokens).double().square().sum().item()
    if difference <= 1e-12 * _mean(a_tokens.float().square()).sum().item():  # in another order, all but zero
        raise ValueError("Both classes hold the same pictures: no direction leads from one to the other.")
    find = METHODS[method]
    values, found = find(a_tokens, b_tokens), separation(a_tokens, b_tokens, find, on_fold=on_fold)
    noise, _ = _noise(a_tokens, b_tokens, _within(a_tokens, b_tokens))
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
    """Cross-validation: each picture is placed along the direction that is found from the others.

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
    # The means of the pictures that chose the direction lie too far out, the more so the fewer they are.
    first, second = (torch.cat(side) for side in places)
    means = first.mean(), second.mean()
    squares = sum((side - mean).square().sum() for side, mean in zip((first, second), means, strict=True))
    deviation = (squares / max(1, len(first) + len(second) - 2)).sqrt().item()
    middle = (means[0] + means[1]) / 2
    return Separation(first - middle, second - middle, (means[1] - means[0]).item(), deviation)


def apply_direction(tokens: Tensor, direction: Tensor, amount: float | Tensor) -> Tensor:
    """`tokens + amount * direction`, as published: `[B, T, D]` of tokens or features `[B, T, D]`.

    Raises:
        ValueError: the direction is of another shape than the tokens.
    """
    if tokens.shape[-2:] != direction.shape[-2:]:
        raise ValueError(
            f"The direction has the shape {list(direction.shape)}, but what it is to change has the shape "
            f"{list(tokens.shape[-2:])}. Use a direction that was found with the same encoder and IP-Adapter."
        )
    return tokens + amount * direction.to(tokens)


def apply_amounts(tokens: Tensor, direction: Tensor, amounts: Sequence[float]) -> Tensor:
    """All sets at the first amount, then all at the second, and so on: `[len(amounts) * B, T, D]`."""
    return torch.cat([apply_direction(tokens, direction, amount) for amount in amounts])


def raw_amounts(direction: Direction, amounts: Sequence[float]) -> list[float]:
    """Amounts given in standard deviations of a class, as multiples of the direction.

    Raises:
        ValueError: the direction does not know its deviation.
    """
    if direction.deviation is None:
        raise ValueError(
            f"{direction.source} does not say how far the pictures of a class spread, so that amounts cannot "
            "be in standard deviations. Give them raw, or find the direction with Find IP+ Direction."
        )
    return [amount * direction.deviation for amount in amounts]


def only_tokens(direction: Direction, numbers: Iterable[int]) -> Direction:
    """The direction at these tokens alone, counted from 1, and zero at all others.

    Raises:
        ValueError: there is no such token.
    """
    count = len(direction.values)
    mask = torch.zeros(count, 1)
    for number in numbers:
        if not 1 <= number <= count:
            raise ValueError(f"Token {number} is asked for, but the direction has {count}, counted from 1.")
        mask[number - 1] = 1
    return replace(direction, values=direction.values * mask)


def combined(first: Direction, second: Direction, weight_first: float, weight_second: float) -> Direction:
    """Both directions at once. Raises ValueError if they lie in different spaces."""
    _check_pair(first, second)
    values = weight_first * first.values + weight_second * second.values
    return _made_of(first, second, values, f"{weight_first:g} x first + {weight_second:g} x second")


def orthogonal(first: Direction, second: Direction) -> Direction:
    """What is left of the first without moving along the second: "more muscular, of the same colour".

    Raises:
        ValueError: they lie in different spaces, or nothing is left, since both point the same way.
    """
    _check_pair(first, second)
    a, b = first.values.double(), second.values.double()
    length = b.square().sum()
    left = a - (a * b).sum() / length * b if length else a
    if left.norm() <= 1e-5 * a.norm():
        raise ValueError(
            f"{first.source} and {second.source} point the same way: of one, nothing is left without the "
            "other."
        )
    return _made_of(first, second, left.float(), "first without second")


def _made_of(first: Direction, second: Direction, values: Tensor, how: str) -> Direction:
    notes = {"made of": how, "first": first.source, "second": second.source}
    return Direction(
        values, first.space, source=f"Combine IP+ Directions ({how})",
        adapter=first.adapter or second.adapter, notes=notes,
    )


def _check_pair(first: Direction, second: Direction) -> None:
    if (first.space, first.values.shape) != (second.space, second.values.shape):
        described = (f"{each.source} lies in {each.space} space with the shape {list(each.values.shape)}"
                     for each in (first, second))
        raise ValueError(f"Only directions of one space can be combined, but {' and '.join(described)}.")
    if first.of_another_adapter(second):
        raise ValueError(
            f"{first.source} and {second.source} were found with different IP-Adapters ({first.adapter} and "
            f"{second.adapter}). Combine directions of one."
        )


def _check_classes(a_tokens: Tensor, b_tokens: Tensor, least: int) -> None:
    for name, tokens in (("first", a_tokens), ("second", b_tokens)):
        if len(tokens) < least:
            raise ValueError(
                f"The {name} class has {_count(len(tokens))}; a direction is found from at least {least} of "
                "each class, and 16 or more are better."
            )
    if a_tokens.shape[1:] != b_tokens.shape[1:]:
        raise ValueError(
            f"The two classes were encoded differently: to {list(a_tokens.shape[1:])} and "
            f"{list(b_tokens.shape[1:])}. Encode both with the same encoder and IP-Adapter."
        )


def _count(pictures: int) -> str:
    return {0: "no picture", 1: "one picture"}.get(pictures, f"{pictures} pictures")


def _mean(tokens: Tensor) -> Tensor:
    return tokens.mean(dim=0, dtype=torch.float64)


def _within(a_tokens: Tensor, b_tokens: Tensor) -> Tensor:
    """Every picture minus the mean of its class, `[A + B, T * D]` float32."""
    return torch.cat([(each - _mean(each)).float().flatten(1) for each in (a_tokens, b_tokens)])


def _noise(a_tokens: Tensor, b_tokens: Tensor, within: Tensor) -> tuple[float, int]:
    """Squared length that chance gives to a difference of means, and the degrees of freedom."""
    degrees = max(1, len(within) - 2)
    variance = within.square().sum(dtype=torch.float64).item() / degrees
    noise = variance * (1 / len(a_tokens) + 1 / len(b_tokens))
    return noise, degrees


def _split(tokens: Tensor, fold: int, folds: int) -> tuple[Tensor, Tensor]:
    """All but every `folds`-th set from number `fold` on, and those."""
    held = torch.arange(len(tokens)) % folds == fold
    return tokens[~held], tokens[held]
