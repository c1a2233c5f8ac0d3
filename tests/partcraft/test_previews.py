"""Parts in colors over their pictures."""

import torch
from PIL import Image

from pit.partcraft.previews import (
    colored_parts,
    highlighted,
    legend,
    legend_picture,
    masks_over,
    part_colors,
)


def test_each_part_has_its_color_where_it_is():
    labels = torch.tensor([[0, 1, 1], [2, 2, 1]])
    shown = colored_parts(Image.new("RGB", (90, 60), "white"), labels, background_part=2)
    assert shown.size == (90, 60) and len(shown.getcolors()) == 3
    colors = part_colors(3)
    for (x, y), part in {(10, 10): 0, (40, 10): 1, (80, 50): 1}.items():
        assert shown.getpixel((x, y)) == tuple(int(0.45 * 255 + 0.55 * value) for value in colors[part])
    assert shown.getpixel((10, 50)) == (114, 114, 114)


def test_colors_stay_the_same_and_differ():
    assert part_colors(9)[:4] == part_colors(4) and len(set(part_colors(60))) == 60
    assert legend(["head"]) == [("head", "#ff2626")]


def test_a_picture_is_dark_where_its_mask_is():
    mask = torch.zeros(20, 30)
    mask[:10] = 1
    shown = highlighted(Image.new("RGB", (30, 20), (200, 100, 50)), mask)
    assert shown.getpixel((3, 3)) == (200, 100, 50)
    assert max(shown.getpixel((3, 15))) <= 0.2 * 200 + 1


def test_masks_lie_where_their_box_is():
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    whole = masks_over(masks, (12, 6), (2, 1, 10, 5))
    assert whole.shape == (2, 6, 12)
    assert whole[0, 1:5, 2:6].eq(1).all() and whole[1, 1:5, 6:10].eq(1).all()
    assert whole.sum() == 4 * 8


def test_the_legend_shows_each_name_beside_its_color():
    names = ["head", "wing", "background"]
    picture = legend_picture(names, 120, 90, background_part=2)
    for number, color in enumerate(part_colors(3)[:2]):
        assert picture.getpixel((8, number * 30 + 8)) == color
    assert picture.getpixel((8, 68)) == (68, 68, 68)
    blank = legend_picture([""] * 3, 120, 90)
    assert picture.crop((28, 0, 120, 90)).getcolors() != blank.crop((28, 0, 120, 90)).getcolors()
