"""What holds for every template, as it is saved: names, notes, places, colors, files, and what is saved."""

import io
import itertools
import re

import pytest
from PIL import Image

from dev.assembly import all_nodes
from dev.layouts import NOTE_COLORS, STAGES
from dev.make_workflows import LAYOUTS
from dev.model_sources import LOADERS, SOURCES
from dev.templates import CHAPTERS, TITLES
from tests.comfyui.workflows import NAMES, WORKFLOWS, template, twin

TITLE_BAR = 30
PAGE, FITTED, MARGIN = (1600, 1000), 0.75, 10  # the page shows a template in three quarters of its canvas
READABLE = 0.6  # below, ComfyUI leaves out words
MOST_WORDS = 95  # of a note
BEGINNERS = "Start here"
DRAWN = {
    "PiT_CreatureParts", "PiT_CreatureScene", "PiT_CreatureKinds", "PiT_ExamplePictures", "PiT_LoadPartSets",
}
"""Nodes whose pictures a template starts from."""

Box = tuple[float, float, float, float]


def boxes(name: str) -> dict[int, Box]:
    """Left, top, right and bottom of each node in view, with its title bar."""
    return {
        node["id"]: box(*node["pos"], *node["size"], TITLE_BAR) for node in template(name)["nodes"]
    }


def box(left: float, top: float, width: float, height: float, above: float = 0) -> Box:
    return left, top - above, left + width, top + height


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def contains(outer: Box, inner: Box) -> bool:
    return all(o <= i for o, i in zip(outer[:2], inner[:2], strict=True)) and all(
        i <= o for o, i in zip(outer[2:], inner[2:], strict=True))


def test_every_template_is_in_the_table_with_its_layout_twin_and_thumbnail():
    assert sorted(LAYOUTS) == NAMES
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == NAMES
    for ending in ("json", "jpg"):
        assert sorted(path.stem for path in WORKFLOWS.glob(f"*.{ending}")) == sorted(TITLES.values())


def test_names_say_what_one_does_and_what_it_needs():
    assert TITLES["piece_it_together"] == "1 Piece it together (runs at once)"
    needs = r"(runs at once|SDXL|SD 1\.5|Kandinsky 2\.2|DINOv2)"
    for title in TITLES.values():
        assert re.fullmatch(rf"[1-9] [A-Z][\w, ]+ \({needs}\)", title)
    assert len(set(TITLES.values())) == len(TITLES)
    assert len(CHAPTERS) < 10  # or the page would put 10 before 2


def test_twins_have_one_name():
    """What differs only in the models that it needs, differs only in what stands in brackets."""
    def plain(name: str) -> str:
        return re.sub(r"_(sdxl|kandinsky|sd15)$", "", name)

    shared: dict[str, set[str]] = {}
    for name, title in TITLES.items():
        shared.setdefault(plain(name), set()).add(title.partition(" (")[0])
    assert {name: titles for name, titles in shared.items() if len(titles) > 1} == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_server_offers_it_with_a_square_picture(comfyui, name):
    title = TITLES[name]
    assert title in comfyui.get("/workflow_templates")["piece-it-together"]
    address = f"/api/workflow_templates/piece-it-together/{title.replace(' ', '%20')}"  # as a browser asks
    assert comfyui.fetch(f"{address}.json") == (WORKFLOWS / f"{title}.json").read_bytes()
    width, height = Image.open(io.BytesIO(comfyui.fetch(f"{address}.jpg"))).size
    assert min(width, height) >= 400 and max(width, height) <= 1.05 * min(width, height)


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_large_enough_to_be_read(name):
    sides = list(zip(*boxes(name).values(), strict=True))
    width, height = (max(sides[side + 2]) - min(sides[side]) + 2 * MARGIN for side in (0, 1))
    assert FITTED * min(PAGE[0] / width, PAGE[1] / height) >= READABLE, (width, height)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_side_by_side_each_in_one_titled_frame(name):
    nodes = boxes(name)
    frames = {group["id"]: box(*group["bounding"]) for group in template(name)["groups"]}
    for boxed in (nodes, frames):
        assert [pair for pair in itertools.combinations(boxed, 2) if overlap(*map(boxed.get, pair))] == []
    for key, inner in nodes.items():
        assert len([frame for frame in frames.values() if contains(frame, inner)]) == 1, key
    assert all(group["title"] for group in template(name)["groups"])


@pytest.mark.parametrize("name", NAMES)
def test_each_stage_has_one_color(name):
    graph = template(name)
    stages = {group_color: (title, body) for title, body, group_color in STAGES.values()}
    frames = {group["id"]: (box(*group["bounding"]), stages[group["color"]]) for group in graph["groups"]}
    for node in graph["nodes"]:
        inner = box(*node["pos"], *node["size"])
        (expected,) = (colors for frame, colors in frames.values() if contains(frame, inner))
        if node["type"] == "MarkdownNote":
            expected = NOTE_COLORS
        assert (node["color"], node["bgcolor"]) == expected, node["id"]


@pytest.mark.parametrize("name", NAMES)
def test_a_short_note_at_the_top_left_tells_where_to_start(name):
    nodes = template(name)["nodes"]
    (first,) = (node for node in nodes if node.get("title") == BEGINNERS)
    assert first["type"] == "MarkdownNote"
    assert first["pos"] == [min(node["pos"][side] for node in nodes) for side in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_notes_are_short_and_readable_in_both_renderers(name):
    notes = [node for node in template(name)["nodes"] if node["type"] == "MarkdownNote"]
    for note in notes:
        (text,) = note["widgets_values"]
        assert "`" not in text, note["title"]  # blue on blue in Nodes 2.0
        assert 8 < len(text.split()) <= MOST_WORDS, note["title"]


@pytest.mark.parametrize("name", NAMES)
def test_notes_name_templates_as_they_are_called(name):
    for note in (node for node in template(name)["nodes"] if node["type"] == "MarkdownNote"):
        (text,) = note["widgets_values"]
        assert set(re.findall(r"\*(\d [^*]+)\*", text)) <= set(TITLES.values())
        assert [other for other in NAMES if "_" in other and other in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_it_starts_from_is_previewed_and_not_saved(name):
    graph = twin(name)
    for node in graph.values():
        if node["class_type"] == "SaveImage":
            assert graph[node["inputs"]["images"][0]]["class_type"] not in DRAWN


@pytest.mark.parametrize("name", NAMES)
def test_loaders_tell_where_their_files_come_from(name):
    for node in all_nodes(template(name)):
        named = zip(LOADERS.get(node["type"], ()), node.get("widgets_values", ()), strict=False)
        wanted = [f"{folder}/{file}" for folder, file in named if f"{folder}/{file}" in SOURCES]
        models = node["properties"].get("models", [])
        assert [f"{model['directory']}/{model['name']}" for model in models] == wanted
        assert [model["url"] for model in models] == [SOURCES[place] for place in wanted]
        assert all(model["url"].startswith("https://huggingface.co/") for model in models)


@pytest.mark.parametrize("name", NAMES)
def test_few_nodes_are_in_view(name):
    graph = template(name)
    shown = [node for node in graph["nodes"] if node["type"] != "MarkdownNote"]
    assert len(shown) <= 18
    if len(twin(name)) > 16:
        assert graph["definitions"]["subgraphs"]
