"""The picture of a training: loss and validation loss over the steps, and the validation loss by time."""
from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .metrics import Point
from .validation import TIMES

SIZE = (960, 400)
CURVES = (70, 30, 640, 350)  # left, top, right, bottom of the axes
BARS = (720, 30, 940, 350)
INK, PALE, LOSS, VALIDATION = "#333333", "#d8d8d8", "#9bb8d3", "#d1495b"


def training_chart(points: Sequence[Point], samples: Image.Image | None = None) -> Image.Image:
    """The chart of a run, RGB, with samples below it. Raises ValueError if nothing was measured yet."""
    chart = figures_chart(points)
    if samples is None:
        return chart
    image = Image.new("RGB", (max(chart.width, samples.width), chart.height + samples.height), "white")
    image.paste(chart, (0, 0))
    image.paste(samples, ((image.width - samples.width) // 2, chart.height))
    return image


def figures_chart(points: Sequence[Point]) -> Image.Image:
    """The curves and bars."""
    losses = [(point.step, point.loss) for point in points if point.loss is not None]
    validations = [(point.step, point.validation) for point in points if point.validation is not None]
    values = [value for _, value in losses + validations if math.isfinite(value)]
    if not values:
        raise ValueError("There is nothing to draw yet: no loss was written down.")
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    low, high = padded(min(values), max(values))
    last = max(point.step for point in points)
    axes(draw, CURVES, low, high, f"step {last}")
    curve(draw, losses, last, low, high, LOSS, 2)
    curve(draw, validations, last, low, high, VALIDATION, 3)
    legend(draw)
    by_time = [point.by_time for point in points if point.by_time is not None]
    if by_time:
        bars(draw, by_time[-1])
    return image


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with some air, never empty."""
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def axes(draw: ImageDraw.ImageDraw, box: Sequence[int], low: float, high: float, end: str) -> None:
    """Five lines with their values, and the name of the right end."""
    left, top, right, bottom = box
    for i in range(5):
        y = bottom - (bottom - top) * i / 4
        draw.line((left, y, right, y), PALE if i else INK)
        draw.text((left - 6, y), f"{low + (high - low) * i / 4:.3g}", INK, font(), anchor="rm")
    draw.text((right, bottom + 8), end, INK, font(), anchor="ra")


def curve(
    draw: ImageDraw.ImageDraw, values: Sequence[tuple[int, float]], last: int, low: float, high: float,
    colour: str, width: int,
) -> None:
    """A line through (step, value); a dot where there is but one."""
    left, top, right, bottom = CURVES
    places = [
        (left + (right - left) * step / last, bottom - (bottom - top) * (value - low) / (high - low))
        for step, value in values if math.isfinite(value)
    ]
    if len(places) == 1:
        x, y = places[0]
        draw.ellipse((x - width, y - width, x + width, y + width), colour)
    draw.line(places, colour, width, joint="curve")


def legend(draw: ImageDraw.ImageDraw) -> None:
    left, top, *_ = CURVES
    for i, (name, colour) in enumerate((("loss", LOSS), ("validation", VALIDATION))):
        draw.text((left + 90 * i, top - 8), name, colour, font(), anchor="ls")
    draw.text((BARS[0], BARS[1] - 8), "validation by t (0 = clean)", VALIDATION, font(), anchor="ls")


def bars(draw: ImageDraw.ImageDraw, by_time: Sequence[float]) -> None:
    """One bar for each time of the validation."""
    left, top, right, bottom = BARS
    high = max((value for value in by_time if math.isfinite(value)), default=1.0) or 1.0
    axes(draw, BARS, 0.0, high, "")
    width = (right - left) / len(TIMES)
    for i, (t, value) in enumerate(zip(TIMES, by_time, strict=True)):
        x = left + width * i
        if math.isfinite(value):
            draw.rectangle((x + 2, bottom - (bottom - top) * value / high, x + width - 3, bottom), VALIDATION)
        draw.text((x + width / 2, bottom + 8), f"{t:.2f}".lstrip("0"), INK, font(), anchor="ma")


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)
