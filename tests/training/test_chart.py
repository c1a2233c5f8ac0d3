"""The chart of a run: the figures of its file, the time left, and samples below."""
from __future__ import annotations

import math
import sys

import pytest
from PIL import Image

from pit import charts
from pit.training.chart import training_chart
from pit.training.command_line import CHART, save_chart
from pit.training.metrics import Metrics, Point
from pit.training.validation import TIMES

POINTS = [
    Point(20, 1.5, None), Point(40, None, 1.4, TIMES), Point(60, 1.2, 1.3, tuple(reversed(TIMES))),
    Point(1080, 1.0, None),
]


@pytest.fixture
def drawn(monkeypatch) -> list[tuple]:
    """What is asked of the module that draws."""
    calls = []
    real = charts.training
    monkeypatch.setattr(charts, "training", lambda *given: calls.append(given) or real(*given))
    return calls


def test_the_figures_are_drawn_with_the_last_validation_by_time(drawn):
    assert training_chart(POINTS).mode == "RGB"
    [(title, losses, validations, by_time)] = drawn
    assert title == "step 1,080"
    assert losses == [(20, 1.5), (60, 1.2), (1080, 1.0)] and validations == [(40, 1.4), (60, 1.3)]
    assert by_time == list(zip(TIMES, reversed(TIMES), strict=True))


def test_the_title_tells_the_learning_rate(drawn):
    training_chart([Point(20, 1.5, None, None, 4e-4), Point(40, 1.5, None, None, 0.000123456)], None, 40.0)
    assert drawn[0][0] == "step 40, learning rate 0.000123, about 40 s left"


def test_without_a_validation_there_is_none_by_time(drawn):
    training_chart(POINTS[:1])
    assert drawn == [("step 20", [(20, 1.5)], [], [])]


@pytest.mark.parametrize(("seconds", "text"), [(754.0, ", about 13 min left"), (0.0, ""), (None, "")])
def test_the_title_tells_the_time_that_is_left(drawn, seconds, text):
    training_chart(POINTS, seconds_left=seconds)
    assert drawn[0][0] == f"step 1,080{text}"


@pytest.mark.parametrize("width", [200, 2000])
def test_samples_lie_below_in_the_middle(width):
    chart, samples = training_chart(POINTS), Image.new("RGB", (width, 50), "lime")
    both = training_chart(POINTS, samples)
    assert both.size == (max(chart.width, width), chart.height + 50)
    row = [both.getpixel((x, both.height - 1)) for x in range(both.width)]
    left = row.index((0, 255, 0))
    assert row.count((0, 255, 0)) == width and abs(both.width - width - 2 * left) <= 1
    left = (both.width - chart.width) // 2
    assert both.crop((left, 0, left + chart.width, chart.height)).tobytes() == chart.tobytes()


@pytest.mark.parametrize("points", [[], [Point(20, math.nan, None)], [Point(20, None, math.inf, TIMES)]])
def test_nothing_measured_is_an_error(points):
    with pytest.raises(ValueError, match="Expected a finite loss to draw, got none"):
        training_chart(points)


def test_the_command_line_saves_the_chart_or_says_what_it_lacks(tmp_path, monkeypatch, capsys):
    Metrics(tmp_path, 0, active=True).write(20, 1.5, None, 1e-4)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        save_chart(tmp_path)
    assert "not drawn: training.png. Charts: " in capsys.readouterr().err and not (tmp_path / CHART).exists()
    save_chart(tmp_path)
    assert Image.open(tmp_path / CHART).width == charts.WIDTH
