"""All charts, drawn by matplotlib from plain numbers: readable in a node, which shows about 500 pixels.

matplotlib is imported when something is drawn, because ComfyUI's start would wait for it. Only its figures
are used, not pyplot, which keeps every figure and may open windows. All colors and sizes are set here: the
defaults belong to the whole process, in which other packs may have changed them.
"""
from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from .packages import needed_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 960
DPI = 72  # one point is one pixel, so that fonts and lines are in pixels
FONT, LINE, THICK, DOT, MARGIN = 22, 4, 6, 14, 12  # halved in a node, they are still 11, 2, 3, 7 and 6
BAR_WIDTH, ROW = 240, 44  # of `bars`
GROUND, INK, GRAY, PALE = "#ffffff", "#333333", "#888888", "#e4e4e4"
BLUE, PALE_BLUE, RED, TEAL = "#3f7fbf", "#8ab0da", "#d1495b", "#3d93a6"
MANY = (INK, RED, "#e09a1f", "#00798c", "#5467c9", "#8f4cb3")

Point = tuple[float, float]


class Bar(NamedTuple):
    """One line of `bars`; without a share (0..1) it has no bar."""

    label: str
    value: str
    share: float | None = None


class Curve(NamedTuple):
    """A line through points; curves of one label have one color."""

    label: str
    points: Sequence[Point]
    dashed: bool = False


def training(
    title: str, losses: Sequence[Point], validations: Sequence[Point], by_time: Sequence[Point] = ()
) -> Image.Image:
    """Loss and validation loss over the steps (RGB), and the validation loss by time t beside them.

    Args:
        losses, validations: (step, loss); what is not finite is left out.
        by_time: (t, loss) of the last validation; none leaves that part out.
    """
    figure = _figure(WIDTH, 480)
    shown = [each for each in by_time if math.isfinite(each[1])]
    left, *rest = figure.subplots(1, 2, width_ratios=(2, 1)) if shown else [figure.subplots()]
    _curve(left, "loss", losses, PALE_BLUE)  # it jumps: the curve to watch is the other
    _curve(left, "validation", validations, RED)
    left.margins(x=0.02)
    left.locator_params("x", integer=True, nbins=5)
    left.locator_params("y", nbins=6)
    left.xaxis.set_major_formatter("{x:,.0f}")
    _style(left, title, "step", "")
    _legend(left)
    for right in rest:
        times, values = zip(*shown, strict=True)
        right.bar(times, values, 0.8 * min(np.diff(times), default=1.0), color=RED)
        right.set_xlim(0, 1)
        right.set_xticks((0, 0.5, 1))
        _style(right, "validation by t", "t (0 clean, 1 noise)", "")
    return _picture(figure)


def separation(rows: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Image.Image:
    """A row for each (title, places of the first class, of the second): every picture as a dot (RGB).

    The middle of each row is 0, which lies half-way between the classes.
    """
    figure = _figure(WIDTH, 60 + 230 * len(rows))
    every = figure.subplots(len(rows), squeeze=False)[:, 0]
    for axes, (title, first, second) in zip(every, rows, strict=True):
        axes.axvline(0, color=GRAY, linewidth=LINE)
        for places, height, color in ((first, 1, BLUE), (second, 0, RED)):
            lifted = [height + 0.12 * (index % 5 - 2) for index in range(len(places))]
            axes.plot(places, lifted, "o", color=color, markersize=DOT, markeredgecolor=GROUND)
        widest = 1.08 * max(map(abs, (*first, *second)), default=0.0) or 1.0
        axes.set(xlim=(-widest, widest), ylim=(-0.6, 1.6), yticks=(1, 0), yticklabels=("first", "second"))
        _style(axes, title, "", "")
        axes.grid(False, axis="y")
    axes.set_xlabel("place along the direction (0: half-way)")
    return _picture(figure)


def bars(title: str, rows: Sequence[Bar]) -> Image.Image:
    """A table with a bar from 0 to 100% in every row that has a share (RGB), as wide as its texts need."""
    figure = _figure(BAR_WIDTH, ROW * len(rows), layout="none")
    axes, places = figure.add_axes((0, 0, 1, 1)), range(len(rows))
    shares = [math.nan if row.share is None else min(max(row.share, 0.0), 1.0) for row in rows]
    axes.barh(places, shares, 0.6, color=TEAL)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=(0, 0.5, 1), yticks=places)
    axes.set_yticklabels([row.label for row in rows])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    values = axes.secondary_yaxis("right")
    values.set_yticks(places, [row.value for row in rows])
    _style(axes, "", "", "")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0, pad=10)
    values.tick_params(labelsize=FONT, labelcolor=INK, length=0, pad=16)
    values.spines[:].set_visible(False)
    left = axes.get_tightbbox().x0 / BAR_WIDTH
    figure.text(left, 1 + 16 / figure.bbox.height, title, fontsize=FONT + 4, color=INK)
    return _trimmed(figure)


def errors(title: str, curves: Sequence[Curve], across: str, up: str) -> Image.Image:
    """Curves on two logarithmic axes of these names, with a tick at every place that is measured (RGB)."""
    figure = _figure(WIDTH, 620)
    axes, labels = figure.subplots(), dict.fromkeys(curve.label for curve in curves)
    colors = dict(zip(labels, MANY, strict=False))
    for label, points, dashed in curves:
        style = {"linestyle": (0, (3, 1.5)), "linewidth": LINE} if dashed else {"linewidth": THICK}
        axes.plot(*zip(*points, strict=True), color=colors[label], label=None if dashed else label, **style)
    axes.set(xscale="log", yscale="log")
    places = sorted({x for curve in curves for x, _ in curve.points})
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    _style(axes, title, across, up)
    _legend(axes, "best")
    return _picture(figure)


def _figure(width: int, height: int, layout: str = "constrained") -> Figure:
    with needed_for("Charts"):
        from matplotlib.figure import Figure
    figure = Figure((width / DPI, height / DPI), DPI, facecolor=GROUND, layout=layout)
    if layout == "constrained":
        figure.get_layout_engine().set(w_pad=MARGIN / DPI, h_pad=MARGIN / DPI)
    return figure


def _curve(axes: Axes, name: str, points: Sequence[Point], color: str) -> None:
    """A line with its last value in the legend; a single point becomes a dot."""
    finite = [point for point in points if math.isfinite(point[1])]
    if finite:
        marker = "o" if len(finite) == 1 else None
        axes.plot(
            *zip(*finite, strict=True), color=color, linewidth=THICK, marker=marker, markersize=DOT,
            label=f"{name} {finite[-1][1]:.3g}",
        )


def _style(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_facecolor(GROUND)
    axes.set_axisbelow(True)
    axes.grid(True, color=PALE, linewidth=LINE)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, linewidth=LINE)
    axes.tick_params(labelsize=FONT, color=INK, labelcolor=INK, width=LINE, length=6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set(fontsize=FONT, color=INK)
        axis.label.set(fontsize=FONT, color=INK)
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.title.set(fontsize=FONT, color=INK)


def _legend(axes: Axes, place: str = "upper right") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            fontsize=FONT, labelcolor=INK, facecolor=GROUND, edgecolor=PALE, framealpha=0.9, handlelength=1.2,
            loc=place,
        )


def _picture(figure: Figure) -> Image.Image:
    """The whole figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _trimmed(figure: Figure) -> Image.Image:
    """The figure with all that hangs out of it, and a margin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(
        file, format="png", dpi=DPI, facecolor=GROUND, bbox_inches="tight", pad_inches=2 * MARGIN / DPI
    )
    return Image.open(file).convert("RGB")
