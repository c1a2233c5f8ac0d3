"""What the other systems do on the creatures, each measured by tables of its own."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from ..models.inserter import CreatureInserter
from ..models.operators import CreatureOperators
from ..models.part_words import (
    PartArtist,
    load_creature_clusters,
    load_creature_dino,
    load_creature_words,
)
from ..models.whole_pictures import CreatureWhole
from .insertion_methods import insertion_pictures, insertion_tables
from .object_insertion import insertion_sheet
from .part_words import mixtures_sheet, partcraft_pictures, partcraft_tables
from .parts2whole import parts2whole_pictures, parts2whole_tables, whole_sheet
from .plan import Plan
from .pops import pops_pictures, pops_sheet, pops_tables
from .suite import Laboratory


class SystemMeasures(NamedTuple):
    """How a system is measured.

    Attributes:
        models: opens them; WeightFileError if a file is missing or damaged.
        tables: all that is measured, in Markdown.
        pictures: how many pictures are rendered for it.
        sheet: what is given and what comes out, of a few seeds, none of them picked.
    """

    models: Callable[[], object]
    tables: Callable[[Laboratory, Plan], str]
    pictures: Callable[[Plan], int]
    sheet: Callable[[Laboratory], Image.Image]


SYSTEM_MEASURES = {
    "pops": SystemMeasures(CreatureOperators, pops_tables, pops_pictures, pops_sheet),
    "object_insertion": SystemMeasures(
        CreatureInserter, insertion_tables, insertion_pictures,
        lambda lab: insertion_sheet(CreatureInserter()),
    ),
    "part_words": SystemMeasures(
        lambda: (load_creature_dino(), load_creature_clusters(), load_creature_words()),
        partcraft_tables, partcraft_pictures,
        lambda lab: mixtures_sheet(PartArtist(load_creature_words()), lab.seed),
    ),
    "parts2whole": SystemMeasures(
        lambda: (CreatureWhole(), CreatureOperators()), parts2whole_tables, parts2whole_pictures,
        lambda lab: whole_sheet(CreatureWhole(), lab.seed),
    ),
}
