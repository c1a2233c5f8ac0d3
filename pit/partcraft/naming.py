"""Names that people give to the parts that were found, and to their codes."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..messages import ShortError, quoted
from .discovery import PartClusters
from .files import LONGEST_NAME
from .prompt import Part, Vocabulary

UNFIT = re.compile(r"[<>:|\n]|^\d+$")  # in a part word these mean something else


def named(clusters: PartClusters, names: Sequence[str], classes: Sequence[str] = ()) -> Vocabulary:
    """The vocabulary of clusters with names for parts, in their order, and for codes.

    Args:
        names: may be fewer than the parts; an empty one leaves a part as it is called.
        classes: of the codes of all parts but the background; those that they have if there are none.
    Raises:
        ShortError: too many names, the same name twice, or one that a part word cannot hold.
    """
    known = clusters.vocabulary
    classes = tuple(classes) or known.classes
    if len(names) > len(known.parts) or len(classes) > clusters.fine.shape[1]:
        raise ShortError(
            f"Expected names of at most {len(known.parts)} parts and {clusters.fine.shape[1]} codes, got "
            f"{len(names)} and {len(classes)}. Leave some out."
        )
    chosen = [*names, *[""] * (len(known.parts) - len(names))]
    parts = tuple(
        Part(name or part.name, part.count, bool(classes) and number != clusters.background_part)
        for number, (name, part) in enumerate(zip(chosen, known.parts, strict=True))
    )
    _check([part.name for part in parts if part.name], "part")
    _check(classes, "code")
    return Vocabulary(parts, classes)


def _check(names: Sequence[str], what: str) -> None:
    for name in names:
        if UNFIT.search(name) or len(name) > LONGEST_NAME:
            raise ShortError(
                f"Expected the name of a {what} without <, >, : and |, no number and at most {LONGEST_NAME} "
                f"letters, got {quoted(name)}. Choose another one."
            )
    twice = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if twice:
        raise ShortError(
            f"Expected each {what} to have a name of its own, got {quoted(twice[0])} twice. Rename one."
        )
