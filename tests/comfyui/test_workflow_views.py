"""How graphs for people open: all in view, and large enough to be read."""

import pytest

from tests.comfyui.workflows import WORKFLOWS, read

READABLE = ["dress_a_figure_sd15", "find_the_parts_sd15", "part_words_sd15", "train_part_words_sd15"]
"""Graphs whose frames stand in rows, so that all of them are in view when they are opened."""


@pytest.mark.parametrize("name", READABLE)
def test_graphs_in_rows_open_large_enough_to_be_read(name):
    """ComfyUI leaves out words below about 60%; the whole graph must be in view at 1600 x 1000."""
    workflow = read(WORKFLOWS / f"{name}.json")
    scale, (left, top) = (workflow["extra"]["ds"][key] for key in ("scale", "offset"))
    assert scale > 0.65
    for x, y, width, height in (group["bounding"] for group in workflow["groups"]):
        assert 0 <= (x + left) * scale and (x + width + left) * scale < 1600
        assert 0 <= (y + top) * scale and (y + height + top) * scale < 1000
