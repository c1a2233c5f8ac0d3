"""The pictures that part words are learned from, and the codes of their parts."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...files.pictures import pictures_below
from ...messages import ShortError
from ..discovery import PartClusters
from ..files import LONGEST_NAME
from ..naming import named
from ..prompt import Part, Vocabulary

BY_CLUSTERS, BY_FOLDERS = "clusters", "folders"
CODES_BY = (BY_CLUSTERS, BY_FOLDERS)
FEW = 50


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder and of the folders directly in it.

    Attributes:
        paths: of the pictures, in order.
        problems: what is left out, and why.
    """

    folder: Path
    paths: tuple[Path, ...]
    problems: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The pictures by their paths in the folder."""
        return [path.relative_to(self.folder).as_posix() for path in self.paths]


def read_pictures(folder: Path) -> Pictures:
    """The pictures below a folder, by their names alone.

    Raises:
        FileNotFoundError: no such folder.
        ShortError: no picture in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of pictures, got no folder at {folder}. Name another one."
        )
    paths, problems = pictures_below(folder)
    if not paths:
        raise ShortError(
            f"Expected pictures in {folder} or in the folders directly in it, got none. Put some there; 100 "
            "or more of one kind of thing are best."
        )
    return Pictures(folder, tuple(paths), tuple(problems))


@dataclass(frozen=True)
class Coding:
    """What the codes of parts stand for.

    Attributes:
        count: K, how many codes a part has at most.
        vocabulary: their names.
        classes: of each picture by its name, the class that it belongs to; empty where clusters tell the
            codes.
        background_part: keeps the codes of its clusters in any case.
    """

    count: int
    vocabulary: Vocabulary
    classes: dict[str, int]
    background_part: int

    def codes(self, name: str, found: Tensor, absent: int) -> Tensor:
        """The codes `[M]` of a picture, with `count` for a part that it lacks.

        Args:
            found: the codes of its clusters, `[M]`, with `absent` for such a part.
        """
        there, result = found != absent, found.clone()
        if self.classes:
            result[:] = self.classes[name]
            result[self.background_part] = found[self.background_part]
        return result.masked_fill(~there, self.count)


def coding_of(clusters: PartClusters, pictures: Pictures, by: str) -> Coding:
    """The codes that clusters tell, or as in the published trainings the classes: the folders of pictures.

    Raises:
        ShortError: classes without folders, or whose names no word can hold.
    """
    if by == BY_CLUSTERS:
        return Coding(clusters.absent, clusters.vocabulary, {}, clusters.background_part)
    folders = [path.parent.relative_to(pictures.folder).as_posix() for path in pictures.paths]
    labels = sorted(set(folders))
    if len(labels) < 2 or "." in labels:
        raise ShortError(
            "Expected a folder for each class, with all pictures inside these folders, got "
            f"{len(labels)} with pictures. Sort them into folders, or let the clusters tell the codes."
        )
    classes = dict(zip(pictures.names, map(labels.index, folders), strict=True))
    back, known = clusters.background_part, clusters.vocabulary
    count = max(len(labels), known.parts[back].count)
    parts = tuple(
        part if number == back or not part.count else Part(part.name, len(labels))
        for number, part in enumerate(known.parts)
    )
    wider = replace(clusters, fine=clusters.fine.new_zeros(len(parts), count, clusters.fine.shape[2]),
                    names=Vocabulary(parts))
    return Coding(count, named(wider, [], class_names(labels)), classes, back)


def class_names(folders: Sequence[str]) -> list[str]:
    """The names of classes from those of folders: `017.Cardinal` is the cardinal."""
    names = [re.sub(r"^[\d\s._-]+(?=\S)|[<>:|\n]", "", name) for name in folders]
    # What stays of two folders may be the same.
    if len({name.casefold() for name in names}) < len(names):
        names = [re.sub(r"[<>:|\n]", "", name) for name in folders]
    return [name.replace("_", " ").strip()[:LONGEST_NAME] for name in names]


def as_masks(labels: Tensor, parts: int) -> Tensor:
    """1 where a part is, `[B,M,h,w]`, of the part of each place, `[B,h,w]`."""
    return (labels[:, None] == torch.arange(parts, device=labels.device)[:, None, None]).float()
