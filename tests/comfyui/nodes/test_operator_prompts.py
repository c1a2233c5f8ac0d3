"""pOps Dataset Prompts: whose words, how many variants, and where the pictures go."""

from __future__ import annotations

import pytest

TEXTURE = {"kind": "texture", "variants": 3, "materials": "moss\ngold"}


@pytest.fixture
def written(inside):
    """Executes the node; gives its outputs by their names."""
    node = inside.pack("nodes.pops.prompts").OperatorPrompts

    def run(kind, folder="mine", seed=5, things="", places=""):
        found = node.execute(kind, folder, seed, things, places).args
        return dict(zip((each.display_name for each in node.define_schema().outputs), found, strict=True))

    return run


def test_lines_take_the_place_of_our_words(written):
    found = written(TEXTURE, things="owl\n", places="on a beach")
    assert found["prompt"] in ("an owl", "an owl on a beach") and found["first"] == "owl"
    assert len(found["second"]) == len(found["seeds"]) == 3
    of = {text.removeprefix("an owl made from ").removesuffix(" on a beach") for text in found["second"]}
    assert of <= {"moss", "gold", "moss and gold", "gold and moss"}
    assert written(TEXTURE)["first"] != "owl"


def test_names_stand_below_the_folder_and_contain_the_seed(written):
    found = written({"kind": "scene"}, folder="dogs", seed=2**64 - 1, things="dog", places="on grass")
    name = f"pops_datasets/dogs/dog_on_grass_{2**64 - 1}"
    assert [found[key] for key in ("picture_name", "first_name", "second_name")] == [
        name, f"{name}_mask", f"{name}_inpainted"]
    assert found["seed"] == 2**64 - 1 and found["second"] == ["A photo of empty grass"]


def test_what_only_textures_have_is_not_asked_of_others(written):
    assert len(written({"kind": "union"})["second"]) == 1


@pytest.mark.parametrize("folder", ["", "..", "a/b", "../elsewhere", "C:\\elsewhere", "/elsewhere"])
def test_names_that_lead_elsewhere_are_refused(written, folder):
    with pytest.raises(ValueError, match="^Expected"):
        written({"kind": "scene"}, folder=folder)


@pytest.mark.parametrize("given, message", [
    ({"things": "cat\n--"}, "Expected words on each line, got '--'"),
    ({"places": ":"}, "Expected words on each line, got ':'"),
    ({"kind": {"kind": "union"}, "things": "cat"}, "Expected two things or more for a union, got 1"),
])
def test_lines_that_do_not_do_are_refused(written, given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        written(**{"kind": {"kind": "scene"}} | given)
