"""The picture of a direction: a row for each space, told with the share on the right side."""
from __future__ import annotations

import torch

from pit import charts
from pit.concepts.direction_chart import separation_chart
from pit.concepts.directions import Separation


def separated(first: list[float], second: list[float]) -> Separation:
    return Separation(torch.tensor(first), torch.tensor(second), 2.0, 0.5)


def test_there_is_a_row_for_each_space_with_its_share():
    chart = separation_chart({
        "token space": separated([-1.0, 0.5], [1.0, 2.0]), "CLIP space": separated([-1.0], [1.0])
    })
    assert chart.tobytes() == charts.separation([
        ("token space: 75% of the left-out pictures on their side", [-1.0, 0.5], [1.0, 2.0]),
        ("CLIP space: 100% of the left-out pictures on their side", [-1.0], [1.0]),
    ]).tobytes()
