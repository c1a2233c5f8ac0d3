"""Every workflow is a test: those of creatures run, and the page makes the twin of each."""

import io
import itertools

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from dev.assembly import plain
from tests.comfyui.pages import images_of, open_workflow, press_run, set_value, wait_for
from tests.comfyui.workflows import NAMES, twin

A_SHORT_TRAINING = {
    "2": {"count": 30, "name": "short"}, "3": {"variants": 1, "name": "short"},
    "10": {"steps": 20, "batch": 8, "save_every": 10, "name": "short"},
}
PICKED = 16
SIDE = 256  # of the pictures of the creature models
FEW_STEPS = 6  # of rendering, in all graphs but the demo


def finished(comfyui, graph: dict):
    result = comfyui.queue(graph)
    assert result.status == "success", result.error
    return result


def hurried(name: str) -> dict:
    """The twin of a graph, with few steps of rendering."""
    graph = twin(name)
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = FEW_STEPS
    return graph


def open_hurried(page, name: str) -> None:
    """The graph itself in the page, with as few steps."""
    open_workflow(page, name)
    for key, node in hurried(name).items():
        if node["class_type"] == "KSampler":
            set_value(page, key, "steps", node["inputs"]["steps"])


# Each graph after it has run. Its tests follow one another, while ComfyUI still has it ready: nothing but the
# page's own conversion differs when the page runs it again.


@pytest.fixture(scope="module")
def demo(comfyui):
    return finished(comfyui, twin("piece_it_together"))


@pytest.fixture(scope="module")
def creature_lab(comfyui):
    return finished(comfyui, hurried("creature_lab"))


@pytest.fixture(scope="module")
def explored(comfyui):
    return finished(comfyui, hurried("explore_concepts"))


@pytest.fixture(scope="module")
def blended(comfyui):
    return finished(comfyui, hurried("blend_concepts"))


@pytest.fixture(scope="module")
def in_scenes(comfyui):
    return finished(comfyui, hurried("concept_in_a_scene"))


@pytest.fixture(scope="module")
def sheets(comfyui):
    return finished(comfyui, hurried("character_sheet"))


@pytest.fixture(scope="module")
def found(comfyui):
    return finished(comfyui, hurried("find_a_direction"))


@pytest.fixture(scope="module")
def edited(comfyui):
    return finished(comfyui, hurried("edit_by_direction"))


@pytest.fixture(scope="module")
def kept(comfyui):
    return finished(comfyui, hurried("token_library"))


@pytest.fixture(scope="module")
def own_prior(comfyui):
    """The graph that trains a prior, after it has run with few creatures and steps."""
    graph = hurried("train_your_own_prior")
    for node, inputs in A_SHORT_TRAINING.items():
        graph[node]["inputs"].update(inputs)
    return finished(comfyui, graph)


def pictures(comfyui, images: list[dict[str, str]]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(comfyui.view(image))).convert("RGB") for image in images]


def assert_concepts(concepts: list[Image.Image], count: int):
    assert [concept.size for concept in concepts] == [(SIDE, SIDE)] * count
    assert len({concept.tobytes() for concept in concepts}) == count
    assert all(len(concept.getcolors(SIDE * SIDE)) > 50 for concept in concepts)


def difference(a: Image.Image, b: Image.Image) -> float:
    """How far two pictures of one size lie apart, 0 to 255 on average."""
    return sum(ImageStat.Stat(ImageChops.difference(a, b)).mean) / 3


def test_the_demo_draws_parts_and_eight_concepts(comfyui, demo):
    assert len(demo.outputs["3"]["images"]) == 3
    assert len(demo.outputs["4"]["images"]) == 3  # what the encoder sees
    assert_concepts(pictures(comfyui, demo.outputs["12"]["images"]), 8)


def test_the_demo_runs_in_the_page(comfyui, demo, page):
    open_workflow(page, "piece_it_together")
    press_run(page)
    wait_for(page, "execution_success")
    assert_concepts(pictures(comfyui, images_of(page, "12")), 8)


def test_the_creature_lab_draws_sixteen_concepts_and_their_table(comfyui, creature_lab):
    concepts = pictures(comfyui, creature_lab.outputs["11"]["images"])
    assert len({concept.tobytes() for concept in concepts}) == 16
    shown, saved = (pictures(comfyui, creature_lab.outputs[node]["images"]) for node in ("12", "13"))
    assert [picture.tobytes() for picture in shown] == [picture.tobytes() for picture in saved]
    assert len(saved) == 1 and saved[0].width > 2 * concepts[0].width


def test_the_creature_lab_runs_in_the_page(comfyui, creature_lab, page):
    open_hurried(page, "creature_lab")
    press_run(page)
    wait_for(page, "execution_success")
    table, before = (
        pictures(comfyui, images)[0].tobytes()
        for images in (images_of(page, "12"), creature_lab.outputs["12"]["images"])
    )
    assert table == before


def test_one_of_a_wall_of_sixteen_is_picked_and_varied(comfyui, explored):
    wall, picked, variations = (
        pictures(comfyui, explored.outputs[node]["images"]) for node in ("12", "18", "25")
    )
    assert_concepts(wall, 16)
    assert_concepts(variations, 8)
    assert_shows(picked, wall, PICKED)
    others = [concept for number, concept in enumerate(wall, 1) if number != PICKED]
    to_others, to_variations = (
        sum(difference(picked[0], concept) for concept in concepts) / len(concepts)
        for concepts in (others, variations)
    )
    assert to_variations < 0.8 * to_others


def assert_shows(picked: list[Image.Image], wall: list[Image.Image], number: int):
    """One picture is there, and it is this one of the wall."""
    distances = [difference(picked[0], concept) for concept in wall]
    assert len(picked) == 1 and distances[number - 1] < 1
    assert sorted(distances)[1] > 5


def test_another_one_is_picked_in_the_page_from_the_same_wall(comfyui, explored, page):
    open_hurried(page, "explore_concepts")
    set_value(page, "13", "numbers", "2")
    press_run(page)
    wait_for(page, "execution_success")
    assert images_of(page, "12") == explored.outputs["12"]["images"]
    wall, picked, variations = (pictures(comfyui, images_of(page, node)) for node in ("12", "18", "25"))
    assert_shows(picked, wall, 2)
    assert_concepts(variations, 8)


def test_a_strip_goes_from_one_concept_to_the_other(comfyui, blended):
    strip, = pictures(comfyui, blended.outputs["17"]["images"])
    assert strip.size == (5 * 256, 256)
    first, *between, last = (strip.crop((left, 0, left + 256, 256)) for left in range(0, strip.width, 256))
    assert difference(first, last) > 10
    from_first = [difference(first, concept) for concept in (first, *between, last)]
    from_last = [difference(last, concept) for concept in (first, *between, last)]
    assert from_first == sorted(from_first) and from_last == sorted(from_last, reverse=True)


def test_concepts_are_blended_in_the_page(comfyui, blended, page):
    open_hurried(page, "blend_concepts")
    press_run(page)
    wait_for(page, "execution_success")
    assert images_of(page, "17") == blended.outputs["17"]["images"]


def test_the_lora_changes_the_scenes_and_nothing_else(comfyui, in_scenes):
    without, with_lora = (pictures(comfyui, in_scenes.outputs[node]["images"]) for node in ("12", "16"))
    for drawn in (without, with_lora):
        assert_concepts(drawn, 4)
    corners = [[each.crop((0, 240, 40, SIDE)) for each in drawn] for drawn in (without, with_lora)]
    assert all(difference(a, b) > 20 for a, b in zip(*corners, strict=True))


def test_a_scene_is_changed_in_the_page(comfyui, in_scenes, page):
    open_hurried(page, "concept_in_a_scene")
    set_value(page, "5", "mode.positive", "a creature on sky lava")
    press_run(page)
    wait_for(page, "execution_success")
    with_lora, before = (
        pictures(comfyui, images) for images in (images_of(page, "16"), in_scenes.outputs["16"]["images"])
    )
    assert all(difference(a, b) > 10 for a, b in zip(with_lora, before, strict=True))


def test_sheets_show_the_creature_from_both_sides(comfyui, sheets):
    """The outline from behind is that from the front, mirrored; from the side, it is another."""
    drawn = pictures(comfyui, sheets.outputs["13"]["images"])
    assert len({sheet.tobytes() for sheet in drawn}) == 4
    for sheet in drawn:
        front, side, back, _ = (
            sheet.crop((x, y, x + SIDE, y + SIDE)) for y in (0, SIDE) for x in (0, SIDE)
        )
        same = difference(front, ImageOps.mirror(back))
        assert same < difference(front, side), same


def test_sheets_are_drawn_in_the_page(comfyui, sheets, page):
    open_hurried(page, "character_sheet")
    press_run(page)
    wait_for(page, "execution_success")
    assert images_of(page, "13") == sheets.outputs["13"]["images"]


def cells(strip: Image.Image, count: int) -> list[Image.Image]:
    """The pictures of a labelled strip of one row."""
    width = strip.width // count
    return [strip.crop((i * width, strip.height - SIDE, (i + 1) * width, strip.height)) for i in range(count)]


def assert_changes_more_the_further_it_goes(drawn: list[Image.Image], still: int):
    """`still` is the place of amount 0, from which the others move away on both sides."""
    away = [difference(drawn[still], each) for each in drawn[still:]]
    assert away == sorted(away) and away[-1] > 8
    assert difference(drawn[still - 1], drawn[still]) > 1


def test_a_found_direction_changes_more_the_further_it_goes(comfyui, found):
    strip, = pictures(comfyui, found.outputs["16"]["images"])
    assert_changes_more_the_further_it_goes(cells(strip, 6), still=2)


def test_found_wings_come_where_there_were_none(comfyui, found):
    strip, = pictures(comfyui, found.outputs["16"]["images"])
    original, _, without, _, with_wings, _ = cells(strip, 6)
    sides = [each.crop((0, 60, 60, 180)) for each in (original, without, with_wings)]
    assert difference(sides[0], sides[1]) < difference(sides[0], sides[2])


def test_a_direction_is_found_in_the_page(comfyui, found, page):
    assert_the_page_draws_the_same(comfyui, page, "find_a_direction", found, "16")


def assert_the_page_draws_the_same(comfyui, page, name: str, before, node: str):
    open_hurried(page, name)
    press_run(page)
    wait_for(page, "execution_success")
    shown, expected = (
        pictures(comfyui, images) for images in (images_of(page, node), before.outputs[node]["images"])
    )
    assert [each.tobytes() for each in shown] == [each.tobytes() for each in expected]


def test_an_edit_changes_more_the_further_it_goes(comfyui, edited):
    strip, = pictures(comfyui, edited.outputs["17"]["images"])
    assert_changes_more_the_further_it_goes(cells(strip, 5), still=2)


def test_concepts_are_edited_in_the_page(comfyui, edited, page):
    assert_the_page_draws_the_same(comfyui, page, "edit_by_direction", edited, "17")


def test_concepts_out_of_files_differ(comfyui, kept):
    strip, = pictures(comfyui, kept.outputs["17"]["images"])
    assert all(difference(a, b) > 10 for a, b in itertools.combinations(cells(strip, 5), 2))
    assert (comfyui.base / "models" / "ip_tokens" / "my_concept.safetensors").is_file()


def test_tokens_are_kept_and_loaded_in_the_page(comfyui, kept, page):
    assert_the_page_draws_the_same(comfyui, page, "token_library", kept, "17")


def test_an_own_prior_is_trained_and_draws_eight_concepts(comfyui, own_prior):
    assert_concepts(pictures(comfyui, own_prior.outputs["16"]["images"]), 8)
    sheet, training = (pictures(comfyui, own_prior.outputs[node]["images"]) for node in ("2", "10"))
    assert len(sheet) == len(training) == 1 and training[0].width == 960
    assert "30 concepts encoded" in own_prior.outputs["3"]["text"][0]
    assert (comfyui.base / "models" / "ip_prior" / "short" / "prior.safetensors").is_file()


def test_an_own_prior_is_trained_in_the_page(comfyui, own_prior, page):
    open_hurried(page, "train_your_own_prior")
    for node, inputs in A_SHORT_TRAINING.items():
        for widget, value in inputs.items():
            set_value(page, node, widget, value)
    press_run(page)
    wait_for(page, "execution_success")
    assert_concepts(pictures(comfyui, images_of(page, "16")), 8)
    assert images_of(page, "10") == own_prior.outputs["10"]["images"]  # not trained again


@pytest.mark.parametrize("name", NAMES)
def test_the_page_makes_the_twin_of_the_graph(page, name):
    open_workflow(page, name)
    converted = plain(page.evaluate("window.app.graphToPrompt().then(({ output }) => output)"))
    expected = twin(name)
    assert sorted(converted) == sorted(expected)
    for key, node in expected.items():
        assert converted[key] == node, key
