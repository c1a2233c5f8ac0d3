"""All charts: what their pictures show, as colors and places of pixels."""

import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from dev import ROOT
from pit import charts
from pit.charts import BLUE, GRAY, INK, LINE, MANY, PALE_BLUE, RED, TEAL, WIDTH, Bar, Curve

LOSSES = [(20, 1.5), (40, 1.2), (60, 1.0)]
VALIDATIONS = [(30, 1.4), (60, 1.1)]
BY_TIME = [(0.25, 1.0), (0.75, 2.0)]
CURVES = [
    Curve("one", [(4, 0.1), (8, 0.01)]), Curve("one", [(4, 0.5), (8, 0.3)], dashed=True),
    Curve("other", [(4, 0.2), (8, 0.04)]),
]


def places(picture: Image.Image, color: str) -> np.ndarray:
    """`[N,2]` rows and columns of the pixels of exactly this color."""
    return np.argwhere((np.asarray(picture) == ImageColor.getrgb(color)).all(axis=2))


def middle_of(picture: Image.Image) -> float:
    """The column of the line in the middle of a separation."""
    return float(np.median(places(picture, GRAY)[:, 1]))


def drawings() -> dict[str, Image.Image]:
    return {
        "training": charts.training("step 60", LOSSES, VALIDATIONS, BY_TIME),
        "separation": charts.separation([("token space", [-1.0, -2.0], [1.0, 2.0])]),
        "bars": charts.bars("Title", [Bar("label", "value", 0.5), Bar("other", "value")]),
        "errors": charts.errors("title", CURVES, "evaluations", "error"),
    }


# Every chart --------------------------------------------------------------------------------------------


def test_charts_are_rgb_and_the_same_each_time():
    for one, two in zip(drawings().values(), drawings().values(), strict=True):
        assert one.mode == "RGB" and one.tobytes() == two.tobytes()


def test_nothing_is_cut_off_at_the_edges():
    for picture in drawings().values():
        pixels = np.asarray(picture)
        for edge in (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]):
            assert (edge == 255).all()


def test_charts_are_drawn_without_global_state_and_whatever_others_have_set():
    """Another pack may have chosen a dark style for the whole process."""
    script = """
import sys, matplotlib
from pit import charts
before = charts.training("t", [(1, 2.0), (2, 1.0)], []).tobytes()
matplotlib.rcParams.update({
    "figure.facecolor": "black", "axes.facecolor": "black", "axes.edgecolor": "white", "text.color": "white",
    "axes.labelcolor": "white", "xtick.color": "white", "ytick.color": "white", "axes.grid": True,
    "lines.linewidth": 1, "font.size": 3, "savefig.facecolor": "black", "legend.facecolor": "black",
})
# Not the backend: asking for it imports pyplot.
settings = {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
assert charts.training("t", [(1, 2.0), (2, 1.0)], []).tobytes() == before
assert all(matplotlib.rcParams[name] == value for name, value in settings.items())
assert "matplotlib.pyplot" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="^Charts: .* pip install matplotlib$"):
        charts.bars("title", [Bar("label", "value", 0.5)])


# A training ---------------------------------------------------------------------------------------------


def test_a_training_has_both_curves_from_the_first_step_to_the_last():
    picture = charts.training("step 60", LOSSES, VALIDATIONS)
    loss, validation = places(picture, PALE_BLUE), places(picture, RED)
    assert picture.width == WIDTH
    assert loss[:, 1].min() < 0.15 * WIDTH and validation[:, 1].max() > 0.9 * WIDTH
    assert loss[:, 0].min() < validation[:, 0].min() - 10  # 1.5 is higher than 1.4


def test_the_title_tells_the_time():
    def title(text):
        return charts.training(text, LOSSES, []).crop((0, 0, WIDTH, 40)).tobytes()

    assert title("step 60") != title("step 60, about 2 min left")


def test_lower_losses_lie_lower():
    falling, rising = (
        places(charts.training("", list(zip((1, 2), values, strict=True)), []), PALE_BLUE)
        for values in ((2.0, 1.0), (1.0, 2.0))
    )
    for path, sign in ((falling, 1), (rising, -1)):
        middle = path[:, 1] < WIDTH / 2
        assert sign * (path[~middle, 0].mean() - path[middle, 0].mean()) > 100


def test_validation_by_time_is_drawn_beside_them_in_proportion():
    alone, with_bars = (charts.training("", LOSSES, [], by_time) for by_time in ((), BY_TIME))
    assert len(places(alone, RED)) == 0
    found = places(with_bars, RED)
    assert found[:, 1].min() > 0.6 * WIDTH
    left, right = (np.ptp(found[found[:, 1] == column(found[:, 1]), 0]) for column in (np.min, np.max))
    assert right / left == pytest.approx(2, abs=0.05)


def test_a_single_figure_is_a_dot_and_what_is_not_finite_is_left_out():
    assert len(places(charts.training("", [(20, 1.5)], []), PALE_BLUE)) > 50
    odd = [(20, 1.5), (40, math.nan), (50, math.inf), (60, 1.0)]
    assert charts.training("", odd, [], [(0.5, math.nan)]).tobytes() == charts.training(
        "", [(20, 1.5), (60, 1.0)], []
    ).tobytes()


# A direction --------------------------------------------------------------------------------------------


def test_every_row_of_a_separation_has_its_dots_on_their_side_of_the_middle():
    picture = charts.separation([("right", [-1.0, -0.5], [0.5, 1.0]), ("turned", [1.0], [-1.0])])
    first, second = places(picture, BLUE), places(picture, RED)
    upper = picture.height / 2
    middle = middle_of(picture)
    for dots, sign in ((first, -1), (second, 1)):
        above = dots[:, 0] < upper
        assert (sign * (dots[above, 1] - middle) > 0).all() and (sign * (dots[~above, 1] - middle) < 0).all()
        assert above.any() and not above.all()


def test_dots_lie_in_proportion_to_their_places():
    picture = charts.separation([("row", [-2.0, -1.0], [2.0])])
    middle = middle_of(picture)
    columns = np.sort(places(picture, BLUE)[:, 1] - middle)
    far, near = columns[columns < columns.mean()].mean(), columns[columns > columns.mean()].mean()
    assert far / near == pytest.approx(2, abs=0.05)
    assert places(picture, RED)[:, 1].mean() - middle == pytest.approx(-far, abs=3)


def test_places_that_are_all_in_the_middle_are_drawn_there():
    picture = charts.separation([("row", [0.0], [0.0])])
    dots = places(picture, BLUE)
    assert len(dots) and abs(dots[:, 1].mean() - places(picture, RED)[:, 1].mean()) < 3


# A table ------------------------------------------------------------------------------------------------


def bar_lengths(picture: Image.Image) -> list[int]:
    """Of every bar, from the top; half of the axis lies on its beginning."""
    widths = (np.asarray(picture) == ImageColor.getrgb(TEAL)).all(axis=2).sum(axis=1)
    starts = np.flatnonzero((widths[1:] > 0) & (widths[:-1] == 0)) + 1
    return [int(widths[start + 5]) + LINE // 2 for start in starts]


def test_bars_are_as_long_as_their_shares():
    picture = charts.bars("bars", [Bar("row", "value", share) for share in (0.25, 0.5, 1.0, 1.2, 0.0)])
    quarter, *others = bar_lengths(picture)
    assert others == pytest.approx([2 * quarter, 4 * quarter, 4 * quarter], abs=4) and quarter > 40


def test_a_row_without_a_share_has_no_bar():
    assert bar_lengths(charts.bars("no bars", [Bar("row", "value")])) == []


@pytest.mark.parametrize("title", ["short", "a title that is far longer than any of the rows below it"])
@pytest.mark.parametrize("value", ["1", "a value that goes on and on for many more words than usual"])
def test_everything_lies_inside_white_margins(title, value):
    one = charts.bars(title, [Bar("label", value, 0.5)])
    two = charts.bars(title, [Bar("label", value, 0.5)] * 2)
    assert two.width == one.width and two.height > one.height
    pixels = np.asarray(one)
    for edge in (pixels[:16], pixels[-16:], pixels[:, :16], pixels[:, -16:]):
        assert (edge == 255).all()
    assert len(places(one, INK))


# Errors of solvers --------------------------------------------------------------------------------------


def test_curves_of_one_label_share_a_color_and_others_differ():
    picture = charts.errors("title", CURVES, "evaluations", "error")
    solid = charts.errors("title", [each._replace(dashed=False) for each in CURVES], "evaluations", "error")
    for color in MANY[:2]:
        assert len(places(picture, color)) > 100
    assert len(places(picture, MANY[2])) == 0
    assert len(places(picture, MANY[0])) < len(places(solid, MANY[0]))
