"""The picture of a training: loss and validation loss over the steps, and the validation loss by time."""
from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from .. import charts
from .metrics import Point
from .pace import duration
from .validation import TIMES


def training_chart(
    points: Sequence[Point], samples: Image.Image | None = None, seconds_left: float | None = None
) -> Image.Image:
    """The chart of a run, RGB, with samples below it, and with the time left if it is known.

    Raises:
        ValueError: no finite loss was measured yet.
        ModuleNotFoundError: matplotlib is not installed.
    """
    losses = [(point.step, point.loss) for point in points if point.loss is not None]
    validations = [(point.step, point.validation) for point in points if point.validation is not None]
    if not any(math.isfinite(loss) for _, loss in losses + validations):
        raise ValueError("Expected a finite loss to draw, got none. Train for a few more steps.")
    by_time = [point.by_time for point in points if point.by_time is not None]
    last = max(points, key=lambda point: point.step)
    title = f"step {last.step:,}"
    if last.rate is not None:
        title += f", learning rate {last.rate:.3g}"
    if seconds_left:
        title += f", about {duration(seconds_left)} left"
    bars = list(zip(TIMES, by_time[-1], strict=True)) if by_time else []
    chart = charts.training(title, losses, validations, bars)
    return chart if samples is None else above(chart, samples)


def above(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Two pictures one above the other, in the middle of white (RGB)."""
    image = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    for picture, top in ((upper, 0), (lower, upper.height)):
        image.paste(picture, ((image.width - picture.width) // 2, top))
    return image


def no_chart() -> Image.Image:
    """What stands in for a chart that cannot be drawn, RGB."""
    image = Image.new("RGB", (480, 64), "white")
    ImageDraw.Draw(image).text((16, 24), "The chart could not be drawn: the log tells why.", "black")
    return image
