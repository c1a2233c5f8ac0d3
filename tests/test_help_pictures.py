"""The pictures of the help pages: how they are laid out, and the graphs that they come from."""

import io
import random

import pytest
from PIL import Image, ImageStat

from dev import Failure
from dev.help_pictures import __main__ as command
from dev.help_pictures.graph import Graph
from dev.help_pictures.recipes import MODULES, RECIPES
from dev.help_pictures.sheet import (
    ACCENT,
    HEIGHT,
    LARGEST_FILE,
    MARGIN,
    WIDTH,
    Cell,
    Words,
    difference,
    encoded,
    sheet,
    tinted,
    wrapped,
)

RED, BLUE = (Image.new("RGB", (256, 256), color) for color in ("red", "blue"))
DEFINITIONS = {
    "Load": {"input": {}, "output_name": ["MODEL", "image"]},
    "Draw": {
        "input": {
            "required": {
                "model": ["MODEL", {}], "steps": ["INT", {"default": 25}], "name": ["STRING", {}],
                "sampler": [["euler", "heun"], {}], "on": ["BOOLEAN", {}],
                "file": ["COMBO", {"options": ["mine", "creature models: scene", "creature models: union"]}],
                "mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                    {"key": "all", "inputs": {"required": {}}},
                    {"key": "some", "inputs": {"required": {"count": ["INT", {"default": 3}]}}},
                ]}],
            },
            "optional": {"seed": ["INT", {"default": 7}]},
        },
        "output_name": ["image"],
    },
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output_name": []},
}


def colors_of(picture: Image.Image, y: int) -> list[str]:
    """The colors of a line of a picture from left to right, each as often as it comes anew."""
    names = {(255, 0, 0): "red", (0, 0, 255): "blue", (255, 255, 255): "white"}
    line = [names.get(picture.getpixel((x, y)), "") for x in range(picture.width)]
    known = [name for name in line if name]
    return [name for before, name in zip([None, *known], known, strict=False) if name != before]


def test_a_row_is_in_its_order_in_the_middle_and_has_the_width_of_all():
    picture = sheet([Cell([RED], "one"), "->", Cell([BLUE, RED], "two")])
    assert picture.width == WIDTH and picture.height <= HEIGHT
    colors = colors_of(picture, picture.height // 3)
    assert colors == ["white", "red", "white", "blue", "white", "red", "white"]


def test_rows_stand_below_each_other():
    picture = sheet([Cell([RED])], [Cell([BLUE])])
    middle = picture.width // 2
    assert picture.getpixel((middle, picture.height // 4)) == (255, 0, 0)
    assert picture.getpixel((middle, 3 * picture.height // 4)) == (0, 0, 255)


@pytest.mark.parametrize("count", [1, 3, 8, 40])
def test_many_pictures_become_smaller(count):
    picture = sheet([Cell([RED] * count, "as many as there are", columns=min(count, 10))])
    assert picture.width == WIDTH and 2 * MARGIN < picture.height <= HEIGHT


def test_what_has_no_room_is_refused():
    with pytest.raises(ValueError, match="fit into 640x320 pixels, got 1 that do not"):
        sheet([Cell([RED] * 40)])
    with pytest.raises(ValueError, match="fit into"):
        sheet([Words("word\n" * 40)])


def test_words_alone_take_no_more_room_than_they_need():
    low, high = (sheet([Words("\n".join(["a line"] * count))]).height for count in (2, 9))
    assert low < high < HEIGHT


def test_words_are_broken_between_words_alone():
    class Face:
        @staticmethod
        def getlength(text: str) -> int:
            return len(text)

    assert wrapped("to be or not to be", 8, Face) == ["to be or", "not to", "be"]
    assert wrapped("extraordinary is it", 5, Face) == ["extraordinary", "is it"]
    assert wrapped("", 5, Face) == []


def test_a_marked_picture_has_an_edge():
    plain, marked = (Cell([RED, BLUE], marked=places).drawn(100) for places in ((), (1,)))
    assert plain.crop((0, 0, 95, 100)).tobytes() == marked.crop((0, 0, 95, 100)).tobytes()
    assert plain.tobytes() != marked.tobytes()


def test_a_mask_is_tinted_and_the_rest_stays():
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 128, 256))
    picture = tinted(BLUE, mask, ACCENT)
    assert picture.getpixel((200, 9)) == (0, 0, 255) and picture.getpixel((9, 9))[0] > 100


def test_what_is_the_same_is_white_in_a_difference():
    other = RED.copy()
    other.paste("black", (0, 0, 128, 256))
    found = difference(RED, other)
    assert found.getpixel((200, 9)) == (255, 255, 255) and max(found.getpixel((9, 9))) < 100


def test_a_file_stays_small_or_is_refused():
    noise = Image.new("RGB", (WIDTH, 300))
    noise.paste(Image.frombytes("RGB", (WIDTH, 100), random.Random(0).randbytes(WIDTH * 300)))
    with pytest.raises(ValueError, match=f"at most {LARGEST_FILE} bytes"):
        encoded(noise)
    file = encoded(sheet([Cell([RED, BLUE])]))
    assert len(file) <= LARGEST_FILE
    assert ImageStat.Stat(Image.open(io.BytesIO(file))).mean[1] < 250


def test_what_the_definition_leaves_open_is_filled_in():
    graph = Graph(DEFINITIONS)
    loaded = graph.add("Load")
    drawn = graph.add("Draw", model=loaded["MODEL"], mode="some", sampler="heun")
    assert graph.nodes[drawn.key] == {"class_type": "Draw", "inputs": {
        "model": ["1", 0], "steps": 25, "name": "", "sampler": "heun", "on": False, "file": "mine",
        "mode": "some", "mode.count": 3,
    }}
    assert graph.nodes[graph.add("Draw", model=loaded, mode__count=5).key]["inputs"]["mode"] == "all"


def test_outputs_are_found_by_their_names():
    graph = Graph(DEFINITIONS)
    loaded = graph.add("Load")
    assert loaded["image"] == ["1", 1]
    with pytest.raises(Failure, match="an output among MODEL, image, got VAE"):
        loaded["VAE"]
    assert graph.shown == {graph.show(loaded["image"], 3): 3}
    with pytest.raises(Failure, match="a node that ComfyUI has, got Lode"):
        graph.add("Lode")


def test_files_of_the_creature_models_are_found_by_their_words():
    graph = Graph(DEFINITIONS)
    assert graph.choice("Draw", "file", "union") == "creature models: union"
    with pytest.raises(Failure, match="creature models: texture in the list file of Draw, got mine, "):
        graph.choice("Draw", "file", "texture")


def test_every_node_has_one_recipe():
    assert sum(len(module.RECIPES) for module in MODULES) == len(RECIPES)
    assert all(make.__doc__ for make in RECIPES.values())


def test_a_failure_is_told_and_the_others_are_made(tmp_path, monkeypatch, capsys):
    def fail(studio):
        raise Failure("no such file.")

    monkeypatch.setattr(command, "PICTURES", tmp_path)
    monkeypatch.setattr(command, "RECIPES", {"A": fail, "B": lambda studio: RED})
    assert command.write_all(None, ["A", "B"]) == ["A: no such file."]
    assert [path.name for path in tmp_path.iterdir()] == ["B.jpg"]


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["PiT_Nothing"], 2)])
def test_asking_for_help_or_for_nonsense_makes_nothing(arguments, code, capsys):
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    said = capsys.readouterr()
    assert raised.value.code == code and "python -m dev.help_pictures" in said.out + said.err
