"""A folder in place of that of the shipped weights, with the base models in it."""
from __future__ import annotations

from pathlib import Path

from pit.demo.models import weights
from pit.demo.models.library import FOLDER

BASES = (weights.SD15, weights.AUTOENCODER, weights.VISION, weights.READER)


def link_bases(folder: Path) -> None:
    """Make the folder, and link what all systems build on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BASES:
        (folder / name).symlink_to(FOLDER / name)
