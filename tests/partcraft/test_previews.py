"""Parts in colors over their pictures."""

import torch
from PIL import Image

from pit.partcraft.previews import colored_parts, legend, part_colors


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
