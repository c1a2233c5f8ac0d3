"""How exactly pictures show the part words asked for: EMR and CoSim of PartCraft (arXiv 2407.04604).

The published code has no evaluation. As the paper describes it, the parts of a picture are found as those of
the collection were, and their codes are compared with the codes in the prompt.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..messages import ShortError
from .discovery import PartClusters, Parts, codes_of
from .prompt import PartWord


class Scores(NamedTuple):
    """What part words came to.

    Attributes:
        exact: EMR, the share of words whose part has the code that was asked for; 0 to 1.
        similarity: CoSim, the mean cosine between the centroids of the code asked for and the code found.
        found: the share of words whose part is in the picture at all.
        count: of the words.
    """

    exact: float
    similarity: float
    found: float
    count: int


def code_features(clusters: PartClusters, codes: Sequence[int]) -> Tensor:
    """The centroid of a code of each part, `[M,d]`."""
    return torch.stack([fine[code] for fine, code in zip(clusters.fine, codes, strict=True)])


def measure_words(parts: Parts, clusters: PartClusters, prompts: Sequence[Sequence[PartWord]],
                  with_background: bool = False) -> Scores:
    """The scores of pictures of which each was asked for some part words.

    A word that mixes codes is exact if the picture shows one of them, and as similar as the nearest of them.
    A part that is not in the picture is as similar as 0.

    Args:
        prompts: the part words of each picture.
        with_background: count words for the background as well, which the paper leaves out.
    Raises:
        ShortError: as many prompts as pictures are needed, with a word at least, of parts and codes of these
            clusters.
    """
    if len(prompts) != len(parts.features):
        raise ShortError(
            f"Expected the part words of each of {len(parts.features)} pictures, got {len(prompts)} prompts. "
            "Give one prompt for each picture."
        )
    skipped = None if with_background else clusters.background_part
    asked = [(row, word) for row, words in enumerate(prompts) for word in words if word.part != skipped]
    if not asked:
        raise ShortError("Expected part words in the prompts, got none. Ask for a part.")
    _check(asked, clusters)
    codes = codes_of(parts, clusters).cpu()
    pairs = [(word, int(codes[row, word.part])) for row, word in asked]
    shown = [found != clusters.absent for _, found in pairs]
    return Scores(
        sum(found in word.codes for word, found in pairs) / len(pairs),
        sum(_similarity(clusters, word, found) for word, found in pairs) / len(pairs),
        sum(shown) / len(pairs), len(pairs),
    )


def _similarity(clusters: PartClusters, word: PartWord, found: int) -> float:
    if found == clusters.absent:
        return 0.0
    centroids = clusters.fine[word.part]
    return cosine_similarity(centroids[list(word.codes)], centroids[found][None]).max().item()


def _check(asked: Sequence[tuple[int, PartWord]], clusters: PartClusters) -> None:
    count, codes = clusters.fine.shape[:2]
    for _, word in asked:
        if not 0 <= word.part < count or not all(0 <= code < codes for code in word.codes):
            raise ShortError(
                f"Expected part words of {count} parts with {codes} codes, as these clusters have, got part "
                f"{word.part} with {', '.join(map(str, word.codes))}. Take the clusters that the words were "
                "trained with."
            )
