"""Files of part clusters: ours, and the published ones, which are pickles of TorchPQ's objects."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..files.archives import UnsoundPickle
from ..files.checked import StrPath, another_file, sound, whole_number
from ..files.outlines import Foreign, TensorAt, outline_of, tensor_at
from ..files.records import KIND, VERSION, WRITTEN_VERSION
from ..files.weights import WeightFileError, read_state, write_state
from ..files.whole import read_beginning
from .discovery import PartClusters, background_of
from .files import check_names, vocabulary_from_json, vocabulary_to_json

PART_CLUSTERS = "part_clusters"
KEYS = ("foreground_background", "coarse", "fine")
PUBLISHED = ("foreground_background", "coarse_kmeans", "fine_kmeans")
MOST_PARTS = 256
LIBRARY = b"torchpq"
WAY = (
    "The way: where torchpq is installed, load it with `torch.load(path, weights_only=False)`, and save "
    "{name: its centroids} with torch.save, with the names foreground_background, coarse and fine [M,d,K]."
)


def save_part_clusters(path: StrPath, clusters: PartClusters, metadata: Mapping[str, str] | None = None
                       ) -> None:
    """Write clusters as safetensors; each centroid is a column, as published.

    Raises:
        WeightFileError: the file cannot be written.
    """
    state = {key: getattr(clusters, key).transpose(-2, -1).float().cpu().contiguous() for key in KEYS}
    facts = {
        KIND: PART_CLUSTERS, VERSION: WRITTEN_VERSION, "foreground": str(clusters.foreground),
        "background_part": str(clusters.background_part),
    }
    if clusters.names is not None:
        facts["vocabulary"] = vocabulary_to_json(clusters.names)
    write_state(path, state, dict(metadata or {}) | facts)


def read_part_clusters(path: StrPath, foreground: int | None = None) -> PartClusters:
    """The clusters in a file of ours, or in one as published, whose centroids alone are read.

    Args:
        foreground: which of the two clusters is the foreground, where the file does not say; the first if
            None, as published.
    Raises:
        WeightFileError: damaged, or another kind of file.
    """
    path = Path(path)
    state, metadata = (_published(path), {}) if _is_published(path) else _tensors(path)
    if not {*KEYS} <= state.keys():
        raise another_file(path, state, "clusters of parts")
    state = _checked(path, state)
    front = _number(path, "foreground", metadata, 2)
    coarse, pair, fine = (state[key].transpose(-2, -1).contiguous().float() for key in
                          ("coarse", "foreground_background", "fine"))
    back = _number(path, "background_part", metadata, len(coarse))
    clusters = PartClusters(
        pair, coarse, fine, (foreground or 0) if front is None else front,
        background_of(coarse) if back is None else back,
    )
    if "vocabulary" not in metadata:
        return clusters
    names = vocabulary_from_json(path, metadata["vocabulary"])
    check_names(path, names, *fine.shape[:2])
    return replace(clusters, names=names)


def _checked(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    coarse, fine = state["coarse"], state["fine"]
    if coarse.ndim != 2 or fine.ndim != 3 or 0 in (*coarse.shape, *fine.shape):
        raise WeightFileError(
            f"{path}: expected coarse [d,M] and fine [M,d,K], got {list(coarse.shape)} and "
            f"{list(fine.shape)}. Save the clusters again."
        )
    width, parts = coarse.shape
    if parts > MOST_PARTS:
        raise WeightFileError(f"{path}: expected at most {MOST_PARTS} parts, got {parts}. Save it again.")
    shapes = (torch.Size((width, 2)), coarse.shape, torch.Size((parts, width, fine.shape[2])))
    return sound(path, dict(state), dict(zip(KEYS, shapes, strict=True)))


def _number(path: Path, name: str, metadata: Mapping[str, str], count: int) -> int | None:
    if name not in metadata:
        return None
    number = 0 if metadata[name] == "0" else whole_number(path, name, metadata)
    if number >= count:
        raise WeightFileError(
            f"{path}: expected a number below {count} as {name} in its metadata, got {number}. Save the "
            "file again."
        )
    return number


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_state(path)
    except WeightFileError as error:
        # As torch before 1.6 saved, or one object alone: nothing is taken out of these.
        if path.is_file() and LIBRARY in read_beginning(path):
            raise WeightFileError(
                f"{path}: expected the three levels of clusters in an archive by torch 1.6 or later, got "
                f"other objects of torchpq. They can run code, so that none was opened. {WAY}"
            ) from error
        raise


def _is_published(path: Path) -> bool:
    """Whether a file is a pickle of objects, not of tensors."""
    try:
        root = outline_of(path)
    except Exception:  # of any kind, for what is no archive; the reader of weights tells what is wrong
        return False
    return isinstance(root, dict) and isinstance(root.get(PUBLISHED[0]), Foreign)


def _published(path: Path) -> dict[str, Tensor]:
    try:
        root = outline_of(path)
        pair, coarse, fine = (root[name] for name in PUBLISHED)
        found = [_centroids(path, each) for each in fine]
        return {
            KEYS[0]: _centroids(path, pair), KEYS[1]: _centroids(path, coarse), KEYS[2]: torch.stack(found)
        }
    except UnsoundPickle as error:
        raise WeightFileError(f"{path}: expected {error}") from error
    except Exception as error:  # damaged bytes fail in any way
        raise WeightFileError(
            f"{path}: expected k-means objects of torchpq with their centroids, got other objects. They can "
            f"run code, so that none was opened. {WAY}"
        ) from error


def _centroids(path: Path, kmeans: Foreign) -> Tensor:
    place = kmeans.get("centroids")
    if not isinstance(place, TensorAt):
        raise ValueError("no centroids")
    return tensor_at(path, place)
