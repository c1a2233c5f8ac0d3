"""What a reader would say, made up for tests."""
from __future__ import annotations

import torch
from torch import Tensor

from pit.demo.drawing.creature import COLOR_NAMES
from pit.demo.drawing.things import THINGS
from pit.demo.models.reader import MAP_SIZE, Reading

PAIRS = len(THINGS) * len(COLOR_NAMES)


def reading_of(attributes: Tensor, **others) -> Reading:
    """Of attributes `[N, A]`: complete creatures on white without things, unless `others` say otherwise."""
    count = len(attributes)
    usual = {
        "scenes": torch.zeros(count, dtype=torch.long), "whole": torch.ones(count),
        "features": torch.zeros(count, 8), "things": torch.zeros(count, PAIRS),
        "counts": torch.zeros(count, dtype=torch.long),
        "maps": torch.zeros(count, MAP_SIZE, MAP_SIZE, dtype=torch.uint8),
    }
    return Reading(attributes, **usual | {name: torch.as_tensor(value) for name, value in others.items()})
