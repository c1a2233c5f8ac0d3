"""A DINO and part words of the creatures as they are before any training, beside the shipped models."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pit.demo.drawing.creature import PARTS, SPECIES
from pit.demo.models import part_words, weights
from pit.demo.models.dino import build_dino, dino_state
from pit.demo.models.library import FOLDER
from pit.demo.models.part_files import CLUSTERS, DINO, NAME, WORDS
from pit.files.weights import write_state
from pit.partcraft.cluster_files import save_part_clusters
from pit.partcraft.discovery import PartClusters
from pit.partcraft.files import PartWords, save_part_words
from pit.partcraft.mapper import TokenMapper
from pit.partcraft.prompt import Part, Vocabulary

CODES = len(SPECIES)
GROUPS = ("background", *PARTS)


def write_untrained(folder: Path) -> Path:
    """A folder in place of that of the shipped weights, with a DINO, clusters and words of random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (weights.SD15, weights.AUTOENCODER):
        (folder / name).symlink_to(FOLDER / name)
    torch.manual_seed(0)
    state, metadata = dino_state(build_dino())
    write_state(folder / DINO, state, {"version": weights.VERSION} | metadata)
    width, count = state["embeddings.cls_token"].shape[-1], len(GROUPS)
    parts = tuple(Part(name, CODES, name != "background") for name in GROUPS)
    names = Vocabulary(parts, tuple(SPECIES))
    save_part_clusters(folder / CLUSTERS, PartClusters(
        torch.randn(2, width), torch.randn(count, width), torch.randn(count, CODES, width), 1, 0, names,
    ))
    mapper = TokenMapper(count, CODES, 96, 1)
    save_part_words(folder / WORDS, PartWords(mapper, names, {}, WORDS))
    return folder


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine read them in place of the shipped ones."""
    monkeypatch.setattr(weights, "FOLDER", folder)
    monkeypatch.setitem(part_words.CLUSTER_FILES, NAME, folder / CLUSTERS)
    monkeypatch.setitem(part_words.WORD_FILES, NAME, folder / WORDS)
