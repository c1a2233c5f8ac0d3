"""All recipes by the nodes whose help pages they are for, a module for each group of nodes."""

from __future__ import annotations

from dev.help_pictures import (
    concepts,
    creatures,
    directions,
    insertion,
    partcraft,
    parts2whole,
    pops,
    tokens,
    training,
)
from dev.help_pictures.studio import Recipe

MODULES = (concepts, creatures, directions, insertion, partcraft, parts2whole, pops, tokens, training)
RECIPES: dict[str, Recipe] = {node: make for module in MODULES for node, make in module.RECIPES.items()}
