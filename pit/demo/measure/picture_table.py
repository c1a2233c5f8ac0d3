"""What was counted in pictures of one set of parts, as rows, and the rows as a picture."""
from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..drawing.creature import ATTRIBUTES, SCENES
from ..models.reader import Reading
from .estimates import mean, percent
from .scores import HIDDEN, NAMES, STYLE_OF, is_found, is_whole, kept, open_entropies
from .trials import Trial

MIXTURE_SEED = 0
GROUND, INK, FAINT, RULE, BAR, TRACK = "white", "#2b2833", "#6d6878", "#e2dfe8", "#5aa6b8", "#eef2f4"
TITLE_FONT, FONT = 24, 19
MARGIN, ROW_HEIGHT, TITLE_HEIGHT, GAP = 28, 38, 54, 24
BAR_SIZE = (150, 12)


class Row(NamedTuple):
    """One line of the table; the share, if there is one, is drawn as a bar."""

    label: str
    value: str
    share: float | None = None


def measured_rows(reading: Reading, trial: Trial, scene: str | None) -> list[Row]:
    """The measures of N pictures that were all drawn from the parts of one trial.

    A row for each attribute that the given parts show, then kept, whole, the scene, and the variety of the
    other attributes: their entropy relative to that of as many fresh free mixtures.

    Args:
        scene: what the prompt asked for, one of `SCENES`; None leaves its row out.
    Raises:
        ValueError: an unknown scene, or no picture.
    """
    if scene is not None and scene not in SCENES:
        raise ValueError(f"unknown scene {scene!r}; there are {', '.join(SCENES)}")
    share = mean(kept(reading, trial.targets))
    rows = attribute_rows(reading, trial.targets)
    rows.append(Row("kept, on average", percent(share), share.value))
    rows.append(counted("whole creatures", is_whole(reading)))
    if scene is not None:
        rows.append(counted(f"scene: {scene}", reading.scenes == SCENES.index(scene)))
    return [*rows, variety_row(reading, trial.targets)]


def attribute_rows(reading: Reading, targets: Tensor) -> list[Row]:
    """How many pictures show each wanted attribute, part by part; `targets [A]`, -100 = not wanted."""
    found = is_found(reading, targets)
    wanted = (index for index, target in enumerate(targets) if target != HIDDEN)
    rows = []
    for index in sorted(wanted, key=lambda index: (STYLE_OF[index], index)):
        name, target = NAMES[index], targets[index]
        rows.append(counted(f"{name.replace('_', ' ')}: {ATTRIBUTES[name][target]}", found[:, index]))
    return rows


def variety_row(reading: Reading, targets: Tensor) -> Row:
    """How varied the attributes are that were not given; `targets [A]`, -100 = not given."""
    drawn, free = open_entropies(reading, targets, random.Random(MIXTURE_SEED))
    if free == 0:
        return Row("variety of the rest", "needs several pictures, and parts left open")
    ratio = (drawn / free).item()
    return Row("variety of the rest", f"{ratio:.1%} of free mixtures", ratio)


def counted(label: str, yes: Tensor) -> Row:
    """How many of `[N]` are true."""
    return Row(label, f"{int(yes.sum())} of {len(yes)}", yes.float().mean().item())


def draw_table(title: str, rows: Sequence[Row]) -> Image.Image:
    """The rows below a title, on white (RGB): label, bar, value. As wide as its texts need."""
    title_font, font = ImageFont.load_default(TITLE_FONT), ImageFont.load_default(FONT)
    bars = MARGIN + max(font.getlength(row.label) for row in rows) + GAP
    values = bars + BAR_SIZE[0] + GAP
    right = values + max(font.getlength(row.value) for row in rows)
    right = max(right, MARGIN + title_font.getlength(title))
    size = round(right + MARGIN), TITLE_HEIGHT + len(rows) * ROW_HEIGHT + 2 * MARGIN
    table = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(table)
    pen.text((MARGIN, MARGIN), title, INK, title_font)
    for number, row in enumerate(rows):
        top = MARGIN + TITLE_HEIGHT + number * ROW_HEIGHT
        middle = top + ROW_HEIGHT / 2
        pen.line((MARGIN, top, right, top), RULE)
        pen.text((MARGIN, middle), row.label, INK, font, anchor="lm")
        pen.text((values, middle), row.value, FAINT, font, anchor="lm")
        if row.share is not None:
            draw_bar(pen, bars, middle, row.share)
    return table


def draw_bar(pen: ImageDraw.ImageDraw, left: float, middle: float, share: float) -> None:
    """A share as a bar in its track; more than 1 fills it."""
    width, height = BAR_SIZE
    top, bottom = middle - height / 2, middle + height / 2
    pen.rectangle((left, top, left + width, bottom), TRACK)
    if share > 0:
        pen.rectangle((left, top, left + width * min(share, 1), bottom), BAR)
