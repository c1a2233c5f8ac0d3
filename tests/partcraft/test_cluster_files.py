"""Part clusters are saved and read, and taken out of the published pickles without opening these."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pit.files.weights import WeightFileError, read_state
from pit.partcraft.cluster_files import read_part_clusters, save_part_clusters
from pit.partcraft.discovery import PartClusters, codes_of, find_parts
from pit.partcraft.files import vocabulary_to_json
from pit.partcraft.prompt import Part, Vocabulary
from tests.partcraft.test_discovery import published_clusters
from tests.refusal import assert_refused


class KMeans(nn.Module):
    """What TorchPQ's class keeps: its centroids as a buffer, and settings."""

    def __init__(self, centroids: Tensor | None):
        super().__init__()
        self.n_clusters, self.distance, self.tol = 2, "cosine", 1e-4
        self.register_buffer("centroids", centroids)
        self.kernel = nn.Module()


KMeans.__module__, KMeans.__qualname__ = "torchpq.clustering.KMeans", "KMeans"


def save_published(path: Path, content: object, monkeypatch: pytest.MonkeyPatch, old: bool = False) -> Path:
    """A pickle of objects of a library that is not there when it is read."""
    module = ModuleType("torchpq.clustering.KMeans")
    module.KMeans = KMeans
    with monkeypatch.context() as patch:
        for name in ("torchpq", "torchpq.clustering", "torchpq.clustering.KMeans"):
            patch.setitem(sys.modules, name, module)
        torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def random_clusters() -> PartClusters:
    random = torch.Generator().manual_seed(0)
    sizes = (2, 6), (4, 6), (4, 5, 6)
    return PartClusters(*(torch.randn(size, generator=random) for size in sizes), 1, 2)


def published_content(clusters: PartClusters) -> dict[str, object]:
    return {
        "foreground_background": KMeans(clusters.foreground_background.T),
        "coarse_kmeans": KMeans(clusters.coarse.T.contiguous()),
        "fine_kmeans": [KMeans(each.T) for each in clusters.fine],
    }


def equal(first: PartClusters, second: PartClusters) -> bool:
    return all(
        torch.equal(getattr(first, key), getattr(second, key))
        for key in ("foreground_background", "coarse", "fine")
    ) and (first.foreground, first.background_part) == (second.foreground, second.background_part)


def test_the_published_file_gives_the_published_labels(golden, tmp_path, monkeypatch):
    clusters, io = published_clusters(golden), golden.below("partcraft_tiny_io", "seg/")
    path = save_published(tmp_path / "pretrained_kmeans.pth", published_content(clusters), monkeypatch)
    found = read_part_clusters(path)
    codes = codes_of(find_parts(io["feats"], found), found)
    assert torch.equal(codes, io["fine_labels"].long()) and equal(found, clusters)


def test_what_is_saved_is_read(tmp_path):
    clusters = random_clusters()
    save_part_clusters(tmp_path / "a.safetensors", clusters, {"note": "x"})
    assert equal(read_part_clusters(tmp_path / "a.safetensors"), clusters)
    state, metadata = read_state(tmp_path / "a.safetensors")
    assert state["coarse"].shape == (6, 4) and metadata["note"] == "x"


def test_names_travel_with_the_clusters(tmp_path):
    parts = (Part(name, 5, name != "sky") for name in ("head", "wing", "sky", "leg"))
    names = Vocabulary(tuple(parts), ("owl",))
    save_part_clusters(tmp_path / "a.safetensors", replace(random_clusters(), names=names))
    found = read_part_clusters(tmp_path / "a.safetensors")
    assert found.vocabulary == names and found.to("cpu").names == names
    state, metadata = read_state(tmp_path / "a.safetensors")
    text = vocabulary_to_json(replace(names, parts=names.parts[:3]))
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "b.safetensors",
              metadata | {"vocabulary": text})
    assert_refused(read_part_clusters, tmp_path / "b.safetensors", "names of 4 parts with at most 5 codes")


def test_without_names_there_are_numbers():
    clusters = random_clusters()
    clusters.fine[1, 3:] = 0
    assert [(part.name, part.count) for part in clusters.vocabulary.parts] == [
        ("part0", 5), ("part1", 3), ("background", 5), ("part3", 5),
    ]


def test_centroids_in_a_plain_pickle_are_read(tmp_path):
    clusters = random_clusters()
    state = {"foreground_background": clusters.foreground_background.T, "coarse": clusters.coarse.T,
             "fine": clusters.fine.transpose(1, 2)}
    torch.save(state, tmp_path / "a.pt")
    found = read_part_clusters(tmp_path / "a.pt", foreground=1)
    assert torch.equal(found.fine, clusters.fine) and found.foreground == 1
    assert read_part_clusters(tmp_path / "a.pt").foreground == 0


@pytest.mark.parametrize("change, message", [
    ({"coarse_kmeans": None}, "got other objects"), ({"fine_kmeans": []}, "got other objects"),
    ({"fine_kmeans": [KMeans(None)]}, "got other objects"),
    ({"coarse_kmeans": nn.Linear(2, 2)}, "can run code"),
    ({"fine_kmeans": [KMeans(torch.ones(6, 2)), KMeans(torch.ones(6, 3))]}, "The way"),
    ({"fine_kmeans": [KMeans(torch.ones(6, 2))]}, "fine of shape [4, 6, 2]"),
    ({"coarse_kmeans": KMeans(torch.ones(6))}, "expected coarse [d,M]"),
    ({"coarse_kmeans": KMeans(torch.full((6, 4), float("nan")))}, "finite numbers in coarse"),
    ({"foreground_background": KMeans(torch.ones(6, 3))}, "foreground_background of shape [6, 2]"),
])
def test_objects_without_right_centroids_are_refused(tmp_path, monkeypatch, change, message):
    content = published_content(random_clusters()) | change
    path = save_published(tmp_path / "pretrained_kmeans.pth", content, monkeypatch)
    assert_refused(read_part_clusters, path, message)


@pytest.mark.parametrize("old", [True, False])
def test_objects_that_are_not_looked_into_are_refused_with_the_way(tmp_path, monkeypatch, old):
    content = published_content(random_clusters()) if old else KMeans(torch.ones(6, 2))
    path = save_published(tmp_path / "pretrained_kmeans.pth", content, monkeypatch, old)
    assert_refused(read_part_clusters, path, "got other objects of torchpq", "The way: where torchpq is")


@pytest.mark.parametrize("change, facts, message", [
    ({"coarse": None}, {}, "expected clusters of parts"), ({"fine": torch.ones(4, 6)}, {}, "fine [M,d,K]"),
    ({"fine": torch.ones(3, 6, 5)}, {}, "fine of shape [4, 6, 5]"),
    ({"more": torch.ones(1)}, {}, "unknown: more"),
    ({"coarse": torch.ones(6, 300)}, {}, "at most 256 parts, got 300"),
    ({}, {"foreground": "2"}, "below 2 as foreground"), ({}, {"background_part": "4"}, "below 4"),
    ({}, {"foreground": "-1"}, "as foreground in its metadata"),
])
def test_damaged_clusters_are_refused(tmp_path, change, facts, message):
    clusters = random_clusters()
    save_part_clusters(tmp_path / "a.safetensors", clusters)
    state, metadata = read_state(tmp_path / "a.safetensors")
    state = {key: value.clone() for key, value in (state | change).items() if value is not None}
    save_file(state, tmp_path / "b.safetensors", metadata | facts)
    assert_refused(read_part_clusters, tmp_path / "b.safetensors", message)


def test_other_files_are_told(tmp_path):
    with pytest.raises(WeightFileError, match="no such file"):
        read_part_clusters(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04 and nothing")
    assert_refused(read_part_clusters, tmp_path / "a.pth", "damaged or truncated")
