"""The picture of a direction: a row for each space, with every picture as a dot on its side."""
from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageColor

from pit.piece_it_together.direction_chart import DOT, FIRST, MARGIN, ROW, SECOND, WIDTH, separation_chart
from pit.piece_it_together.directions import Separation

LINES = {FIRST: 62, SECOND: 102}  # height of the dots of each class in their row


def separated(first: list[float], second: list[float]) -> Separation:
    return Separation(torch.tensor(first), torch.tensor(second), 2.0, 0.5)


def columns_of(chart: Image.Image, colour: str, row: int = 0) -> np.ndarray:
    """Where dots of a colour lie in a row, from -1 to 1; the words below and above are left out."""
    line = row * ROW + LINES[colour]
    band = np.asarray(chart)[line - 17:line + 18]
    _, columns = np.nonzero((band == ImageColor.getrgb(colour)).all(axis=2))
    return (columns - WIDTH / 2) / (WIDTH / 2 - MARGIN - DOT)


def test_there_is_a_row_for_each_space():
    one = separation_chart({"token": separated([-1.0], [1.0])})
    both = separation_chart({"token": separated([-1.0], [1.0]), "clip": separated([1.0], [-1.0])})
    assert (one.mode, one.size) == ("RGB", (WIDTH, ROW))
    assert both.size == (WIDTH, 2 * ROW)
    assert both.crop((0, 0, WIDTH, ROW)).tobytes() == one.tobytes()
    assert columns_of(both, FIRST, 1).min() > 0 > columns_of(both, SECOND, 1).max()


def test_dots_lie_where_their_pictures_do():
    chart = separation_chart({"token": separated([-2.0, -1.0, -2.0], [1.0, 2.0])})
    dot = DOT / (WIDTH / 2 - MARGIN - DOT)
    for colour, ends in ((FIRST, (-1.0, -0.5)), (SECOND, (0.5, 1.0))):
        columns = columns_of(chart, colour)
        near = [np.abs(columns - end) <= 1.2 * dot for end in ends]
        assert near[0].any() and near[1].any() and (near[0] | near[1]).all()


def test_a_picture_on_the_wrong_side_is_seen_there():
    chart = separation_chart({"token": separated([-1.0, 0.5], [1.0])})
    assert columns_of(chart, FIRST).min() < -0.9 and columns_of(chart, FIRST).max() > 0.4


def test_the_title_says_the_space_and_the_share():
    def title(name: str, first: list[float]) -> bytes:
        return separation_chart({name: separated(first, [1.0, 1.0])}).crop((0, 0, WIDTH, 40)).tobytes()

    blank = Image.new("RGB", (WIDTH, 40), "white").tobytes()
    assert len({blank, title("token", [-1.0]), title("clip", [-1.0]), title("token", [1.0])}) == 4
    assert title("token", [-1.0]) == title("token", [-0.5])


def test_many_pictures_stay_in_their_row():
    places = torch.linspace(-1.0, 1.0, 200).tolist()
    chart = separation_chart({"token": separated(places, places)})
    border = np.asarray(chart)[:, [0, 1, MARGIN - 3, WIDTH - MARGIN + 3, WIDTH - 1]]
    assert (border == 255).all()


def test_places_that_are_all_in_the_middle_are_drawn_there():
    columns = columns_of(separation_chart({"token": separated([0.0], [0.0])}), FIRST)
    assert len(columns) and np.abs(columns).max() < 0.05
