"""Load Part Sets: what it offers and refuses, and a graph that runs once for each set."""

import os

import pytest
from PIL import Image

from tests.comfyui.nodes.graphs import node


@pytest.fixture
def load(inside):
    return inside.nodes("part_sets").LoadPartSets


@pytest.fixture
def paint(inside):
    """Writes pictures of one color into input, by their paths."""
    def run(**pictures):
        for name, colour in pictures.items():
            path = inside.base.joinpath("input", *name.split("__")).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), colour).save(path)
        return inside.base / "input"

    return run


def test_the_pictures_of_each_set_come_with_its_name(load, paint):
    paint(sets__ember__1="red", sets__ember__2="blue", sets__storm__1="lime")
    assert load.validate_inputs("sets") is True
    parts, names, report = load.execute("sets", 1, 100).args
    assert names == ["ember", "storm"] and [tuple(each.shape) for each in parts] == [
        (2, 10, 20, 3), (1, 10, 20, 3),
    ]
    assert parts[0][1, 0, 0].tolist() == [0, 0, 1] and report == "2 of 2 sets"


def test_some_of_the_sets_are_read(load, paint):
    paint(some__a__1="red", some__b__1="red", some__c__1="red")
    assert load.execute("some", 2, 1).args[1:] == (["b"], "1 of 3 sets")


def test_a_new_node_stands_on_sets_that_come_with_the_pack(load):
    offered = load.define_schema().inputs[0].options
    assert load.validate_inputs(offered[0]) is True
    parts, names, _ = load.execute(offered[0], 1, 100).args
    assert names == ["ember", "lagoon", "moss", "storm"] and {len(each) for each in parts} == {3}


def test_a_set_that_cannot_be_read_is_left_out_and_named(load, paint):
    place = paint(broken__good__1="red", broken__bad__1="red", broken__bad__2="red")
    (place / "broken" / "bad" / "2.png").write_bytes(b"no picture")
    _, names, report = load.execute("broken", 1, 100).args
    assert names == ["good"] and "1 of 2 sets\nleft out: bad: Expected a picture, but" in report
    (place / "broken" / "good" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="Expected a picture, but .*None of the sets can be used"):
        load.execute("broken", 1, 100)


@pytest.mark.parametrize("choice", [
    "..", "../input", "/etc", "sets/../..", "~", "", "examples", "a\0b", "C:\\", "n" * 400, "output/few",
])
def test_no_name_leads_out_of_the_folders(load, paint, choice):
    paint(sets__ember__1="red")
    expected = "Load Part Sets expected a folder inside ComfyUI's input folder, got"
    assert expected in load.validate_inputs(choice)
    with pytest.raises(FileNotFoundError):
        load.execute(choice, 1, 100)


def test_a_folder_of_plain_pictures_says_how_it_should_look(load, paint):
    paint(plain__1="red")
    with pytest.raises(ValueError, match="Expected a subfolder with pictures for each set"):
        load.execute("plain", 1, 100)


def test_changed_added_and_removed_pictures_are_seen(load, paint):
    place = paint(seen__a__1="red", seen__b__1="red")
    before = load.fingerprint_inputs(folder="seen", first=1, most=1)
    assert load.fingerprint_inputs(folder="seen", first=1, most=1) == before
    os.utime(place / "seen" / "a" / "1.png", (1, 1))
    changed = load.fingerprint_inputs(folder="seen", first=1, most=1)
    paint(seen__b__2="blue")
    added = load.fingerprint_inputs(folder="seen", first=1, most=1)
    (place / "seen" / "b" / "1.png").unlink()
    removed = load.fingerprint_inputs(folder="seen", first=1, most=1)
    assert len({str(each) for each in (before, changed, added, removed)}) == 4
    assert load.fingerprint_inputs(folder=None, first=1, most=1) is None


def test_a_run_saves_the_pictures_of_each_set_under_its_name(lab):
    for name, count in (("ember", 2), ("storm", 3)):
        folder = lab.base / "input" / "queued" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (20, 10 + number), "red").save(folder / f"{number}.png")
    graph = {
        "sets": node("PiT_LoadPartSets", folder="queued", first=1, most=100),
        "save": node("SaveImage", images=["sets", 0], filename_prefix=["sets", 1]),
    }
    result = lab.queue(graph)
    assert result.status == "success", result.error
    assert [image["filename"] for image in result.outputs["save"]["images"]] == [
        "ember_00001_.png", "ember_00002_.png", "storm_00001_.png", "storm_00002_.png", "storm_00003_.png",
    ]
    assert result.outputs["sets"]["text"] == ["2 of 2 sets"]
    refused = lab.queue(graph | {"sets": node("PiT_LoadPartSets", folder="../queued", first=1, most=100)})
    assert refused.status == "refused" and "Load Part Sets expected a folder" in refused.error
