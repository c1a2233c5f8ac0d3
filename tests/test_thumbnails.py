"""The pictures that show what the demo and the graphs with creatures do."""

import json

import pytest
from PIL import Image

from dev import Failure
from dev.demo import title_of
from dev.thumbnails import (
    AT_ONCE,
    WORKFLOWS,
    by_sets,
    cut,
    shown_titles,
    thumbnail_of_run,
    together,
    write_pictures,
)


def write_demo_output(folder, parts, concepts):
    for kind, colours in (("part", parts), ("concept", concepts)):
        for number, colour in enumerate(colours, 1):
            Image.new("RGB", (128, 128), colour).save(folder / f"{kind}_{number}.png")


def test_the_thumbnail_has_the_parts_above_the_concepts_in_the_order_of_their_numbers(tmp_path):
    reds = [(20 * number, 0, 0) for number in range(1, 12)]
    write_demo_output(tmp_path, ["lime", "blue"], reds)
    readme_picture, thumbnail = tmp_path / "docs" / "picture.png", tmp_path / "thumbnail.jpg"
    write_pictures(tmp_path, readme_picture, thumbnail)
    picture = Image.open(thumbnail).convert("RGB")
    assert picture.size == (640, 640)
    first, last = picture.getpixel((80, 240)), picture.getpixel((480, 560))
    assert abs(first[0] - 20) < 8
    assert abs(last[0] - 220) < 8
    row = [picture.getpixel((x, 80)) for x in (240, 400)]
    assert [max(range(3), key=pixel.__getitem__) for pixel in row] == [1, 2]
    assert Image.open(readme_picture).width > 500


def test_the_thumbnail_of_a_run_has_a_picture_below_its_concepts():
    concepts = [Image.new("RGB", (128, 128), (20 * number, 0, 0)) for number in range(11)]
    picture = thumbnail_of_run([concepts, [Image.new("RGB", (1280, 900), "blue")]])
    assert picture.size == (640, 640)  # 2 rows of 80, 8 between, and 450: 11 are left above and below
    assert [picture.getpixel(point)[0] for point in ((40, 51), (600, 51), (40, 131), (200, 131))] == [
        0, 140, 160, 200,
    ]
    white = [picture.getpixel(point) for point in ((40, 175), (40, 5), (40, 635))]
    assert white == [(255, 255, 255)] * 3
    assert picture.getpixel((40, 181)) == picture.getpixel((600, 621)) == (0, 0, 255)


def test_a_strip_is_cut_to_fill_a_square():
    strip = Image.new("RGB", (500, 120))
    for number in range(5):
        strip.paste((40 * number, 0, 0), (100 * number, 0, 100 * number + 100, 120))
    picture = thumbnail_of_run([cut(strip, 5)])
    assert picture.size == (640, 640)
    rows = [[picture.getpixel((x, y)) for x in (100, 320, 540)] for y in (200, 440)]
    assert rows == [[(0, 0, 0), (40, 0, 0), (80, 0, 0)], [(120, 0, 0), (160, 0, 0), (255, 255, 255)]]


def test_sets_stand_in_rows_of_their_own():
    parts, concepts = (list(range(first, first + 6)) for first in (0, 10))
    assert by_sets([parts, concepts[:4]], 2) == [[0, 1, 2, 10, 11], [3, 4, 5, 12, 13]]


def test_single_pictures_stand_together():
    assert together([["a"], ["b"], ["c"]]) == [["a", "b", "c"]]
    assert together([["a", "b"], ["c"]]) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_is_pictured_is_shown_by_the_graph(name):
    graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    titles = shown_titles(name, graph)
    assert titles and set(titles) <= set(map(title_of, graph.values()))


def test_without_the_demos_pictures_it_says_what_to_do(tmp_path):
    write_demo_output(tmp_path, ["red"], [])
    with pytest.raises(Failure, match=r"Expected concept_1\.png .* dev\.py demo"):
        write_pictures(tmp_path, tmp_path / "picture.png", tmp_path / "thumbnail.jpg")
