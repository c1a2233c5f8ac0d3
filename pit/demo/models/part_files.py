"""The files of the creatures' PartCraft: the DINO that sees parts, the parts that it found, their words."""
from __future__ import annotations

from .library import FOLDER

DINO, CLUSTERS, WORDS = (
    f"creature_{name}.safetensors" for name in ("dino", "part_clusters", "part_words")
)
NAME = "creature models"
DINO_FILES, CLUSTER_FILES, WORD_FILES = ({NAME: FOLDER / file} for file in (DINO, CLUSTERS, WORDS))
