"""What stages encode once with the shipped models, kept in files of some hundred pictures."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ...files.weights import load_states, save_states
from ..models.autoencoder import CreatureAutoencoder
from ..models.loading import load_creature_autoencoder, load_creature_vision
from ..models.vision import CreatureVision
from .stage import Run

CHUNK = 250  # pictures between two files, which is what an interruption loses at most


@dataclass(frozen=True)
class Encoders:
    """The shipped models that encode pictures."""

    autoencoder: CreatureAutoencoder
    vision: CreatureVision


def load_encoders(device: torch.device) -> Encoders:
    """The encoders on a device; errors as in `load_creature_autoencoder`."""
    models = load_creature_autoencoder(), load_creature_vision()
    return Encoders(*(model.to(device, memory_format=torch.channels_last) for model in models))


def in_files(
    run: Run, name: str, count: int, make: Callable[[range], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What `make` makes of the numbers up to `count`, `CHUNK` at a time, each kept in a file."""
    chunks = []
    with tqdm(total=count, desc=name, mininterval=5) as bar:
        for start in range(0, count, CHUNK):
            rows = range(start, min(start + CHUNK, count))
            path = run.folder / f"{name}_{start:06d}_{len(rows)}.pt"
            if not path.exists():
                save_states(path, dict(make(rows)))
            chunks.append(load_states(path))
            bar.update(len(rows))
    return {key: torch.cat([chunk[key] for chunk in chunks]) for key in chunks[0]}
