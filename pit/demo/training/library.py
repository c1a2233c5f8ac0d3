"""Making the directions and concepts that come with the pack, with the shipped encoder."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...concepts.directions import TOKEN_SPACE, measured_direction
from ...concepts.token_files import save_direction, save_tokens
from ...concepts.tokens import Tokens
from ...files.records import adapter_stamp
from ...ip_adapter.files import read_ip_adapter
from ..drawing.creature import Creature, creature_from_seed
from ..drawing.draw import whole_view
from ..drawing.edits import EDITS, both_classes
from ..models.chain import CreatureChain
from ..models.library import CONCEPTS, library_file
from ..models.weights import IP_ADAPTER, weight_file

PICTURES = 64  # of each kind


def write_library(folder: Path, seed: int) -> None:
    """Write a file for every edit and every concept into a folder."""
    chain = CreatureChain()
    # Tokens and directions only fit the IP-Adapter that they were made with; its stamp goes into the files.
    stamp = adapter_stamp(read_ip_adapter(weight_file(IP_ADAPTER)).resampler_state)

    def tokens(creatures: list[Creature]) -> Tensor:
        return chain.encode([whole_view(creature) for creature in creatures])

    for name in EDITS:
        classes = [tokens(creatures) for creatures in both_classes(name, PICTURES, seed)]
        direction, _ = measured_direction(*classes, "shrinkage", TOKEN_SPACE, "drawn creatures", stamp)
        save_direction(library_file("direction", name, folder), direction)
    for name in CONCEPTS:
        values = tokens([creature_from_seed(seed, 1.0, name)])
        with torch.no_grad():
            save_tokens(
                library_file("tokens", name, folder),
                Tokens(
                    values, chain.uncond, source="drawn creatures", adapter=stamp, notes={"species": name}
                ),
            )
