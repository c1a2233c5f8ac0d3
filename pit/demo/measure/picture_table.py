"""What was counted in pictures of one set of parts, as the rows of a chart."""
from __future__ import annotations

import random

from torch import Tensor

from ...charts import Bar
from ..drawing.creature import ATTRIBUTES, SCENES, UNSEEN
from ..models.reader import Reading
from .estimates import mean, percent
from .scores import NAMES, STYLE_OF, is_found, is_whole, kept, open_entropies
from .trials import Trial

MIXTURE_SEED = 0


def measured_rows(reading: Reading, trial: Trial, scene: str | None) -> list[Bar]:
    """The measures of N pictures that were all drawn from the parts of one trial.

    A row for each attribute that the given parts show, then kept, whole, the scene, and the variety of the
    other attributes: their entropy relative to that of as many fresh free mixtures.

    Args:
        scene: what the prompt asked for, one of `SCENES`; None leaves its row out.
    Raises:
        ValueError: an unknown scene, or no picture.
    """
    if scene is not None and scene not in SCENES:
        raise ValueError(f"Expected one of the scenes {', '.join(SCENES)}, got {scene!r}.")
    share = mean(kept(reading, trial.targets))
    rows = attribute_rows(reading, trial.targets)
    rows.append(Bar("kept, on average", percent(share), share.value))
    rows.append(counted("whole creatures", is_whole(reading)))
    if scene is not None:
        rows.append(counted(f"scene: {scene}", reading.scenes == SCENES.index(scene)))
    return [*rows, variety_row(reading, trial.targets)]


def attribute_rows(reading: Reading, targets: Tensor) -> list[Bar]:
    """How many pictures show each wanted attribute, part by part; `targets [A]`, -100 = not wanted."""
    found = is_found(reading, targets)
    wanted = (index for index, target in enumerate(targets) if target != UNSEEN)
    rows = []
    for index in sorted(wanted, key=lambda index: (STYLE_OF[index], index)):
        name, target = NAMES[index], targets[index]
        rows.append(counted(f"{name.replace('_', ' ')}: {ATTRIBUTES[name][target]}", found[:, index]))
    return rows


def variety_row(reading: Reading, targets: Tensor) -> Bar:
    """How varied the attributes are that were not given; `targets [A]`, -100 = not given."""
    drawn, free = open_entropies(reading, targets, random.Random(MIXTURE_SEED))
    if free == 0:
        return Bar("variety of the rest", "needs several pictures, and parts left open")
    ratio = (drawn / free).item()
    return Bar("variety of the rest", f"{ratio:.1%} of free mixtures", ratio)


def counted(label: str, yes: Tensor) -> Bar:
    """How many of `[N]` are true."""
    return Bar(label, f"{int(yes.sum())} of {len(yes)}", yes.float().mean().item())
