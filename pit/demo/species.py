"""Creatures of all species as folders of pictures, whose names are the classes that part words have."""
from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from ..files.lock import only_process
from ..files.pictures import save_picture
from .drawing.creature import SPECIES, Creature, sample_creature
from .drawing.draw import draw_creature
from .models.sizes import PICTURE_SIZE


def species_creatures(count: int, seed: int) -> list[Creature]:
    """Pure members of all species, `count` of each; each depends only on the seed and its own number."""
    return [
        sample_creature(random.Random(f"species/{seed}/{species}/{number}"), 1.0, species)
        for species in SPECIES for number in range(count)
    ]


def write_species(
    folder: Path, count: int, seed: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Creature]:
    """Draw them on white into a folder for each species; returns them.

    Args:
        on_progress: called with (creatures done, all) after each; may raise to stop.
    Raises:
        OSError: the folder cannot be written.
        InUseError: another process writes to the folder.
    """
    creatures = species_creatures(count, seed)
    with only_process(folder):
        for number, creature in enumerate(creatures):
            place = folder / creature.species
            place.mkdir(parents=True, exist_ok=True)
            picture = draw_creature(creature, PICTURE_SIZE)
            save_picture(place / f"{seed}-{number % count:04d}.png", picture)
            on_progress(number + 1, len(creatures))
    return creatures
