"""Measure Creatures: its counts are right where the truth is drawn, and it sits well in ComfyUI."""

import io
import random
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pit.charts import bars
from pit.demo.drawing.composition import Composition
from pit.demo.drawing.creature import PARTS, SCENES
from pit.demo.drawing.draw import draw_creature
from pit.demo.drawing.flaws import FLAWS
from pit.demo.measure.picture_table import measured_rows
from pit.demo.models.reader import as_pictures, load_reader
from pit.demo.models.sizes import PICTURE_SIZE
from pit.images import to_pil, to_tensor
from tests.comfyui.nodes.graphs import node
from tests.demo.drawn import draw_flawed

SEEDS = range(4)
GIVEN = ("horns", "wings", "tail")


@pytest.fixture
def creature_parts(inside):
    """Runs Creature Parts; returns its PIT_CREATURE."""
    def run(seed=7, species="mixed", parts=GIVEN):
        wanted = {part: part in parts for part in PARTS}
        return inside.pack("nodes.creatures.parts").CreatureParts.execute(seed, species, **wanted).args[1]

    return run


@pytest.fixture
def measure(inside):
    """Runs Measure Creatures on PIL pictures or a tensor; returns its node output."""
    def run(pictures, trial, scene="any"):
        images = to_tensor(pictures) if isinstance(pictures, list) else pictures
        with torch.inference_mode():
            return inside.pack("nodes.creatures.measure").MeasureCreatures.execute(images, trial, scene)

    return run


def read_rows(pictures, trial, scene=None):
    """Values by label, as the engine reads them without ComfyUI."""
    rows = measured_rows(load_reader().read(as_pictures(pictures)), trial, scene)
    return {row.label: row.value for row in rows}


def in_every_scene(creature):
    return [draw_creature(replace(creature, scene=scene), PICTURE_SIZE) for scene in SCENES]


def test_creature_parts_tells_which_creature_and_which_of_its_parts(creature_parts):
    trial = creature_parts(seed=1, species="tide", parts=("mouth", "wings", "tail"))
    assert trial.creature.species == "tide"
    assert trial.parts == ("mouth", "wings", "tail")  # the species has no wings, but this creature gets some
    assert trial.creature.attributes["wings"] != "none"
    assert trial.creature.attributes["tail"] == "fish"


def test_every_seed_draws_all_that_was_chosen(creature_parts):
    chosen = ("horns", "wings", "tail")
    assert {creature_parts(seed, parts=chosen).parts for seed in range(60)} == {chosen}


@pytest.mark.parametrize("seed", SEEDS)
def test_pictures_of_the_creature_itself_keep_everything(creature_parts, measure, seed):
    trial = creature_parts(seed, parts=PARTS)
    pictures = in_every_scene(trial.creature)
    assert measure(pictures, trial).args[1] == 1.0
    rows = read_rows(pictures, trial)
    everything = f"{len(SCENES)} of {len(SCENES)}"
    assert rows["whole creatures"] == everything
    given = [value for label, value in rows.items() if ":" in label]
    assert given == [everything] * len(given) and len(given) >= len(trial.parts)


def test_pictures_of_another_creature_keep_little(creature_parts, measure):
    pictures = in_every_scene(creature_parts(seed=8).creature)
    assert measure(pictures, creature_parts(seed=7)).args[1] < 0.4


def test_flawed_pictures_keep_less_and_are_not_whole(creature_parts, measure):
    trial, rng = creature_parts(parts=PARTS), random.Random(0)
    flawed = [draw_flawed(trial.creature, rng) for _ in range(24)]
    assert measure(flawed, trial).args[1] < 0.97
    whole, _, count = read_rows(flawed, trial)["whole creatures"].split()
    assert int(whole) <= 2 < int(count)


@pytest.mark.parametrize("flaw", ["half a creature", "smeared", "dissolved"])
def test_what_hides_the_creature_lowers_kept(creature_parts, measure, flaw):
    trial, rng = creature_parts(parts=PARTS), random.Random(1)
    shown = Composition("white", creature=trial.creature)
    assert measure([FLAWS[flaw](shown, rng) for _ in range(8)], trial).args[1] < 0.9


def test_the_table_is_that_of_the_engine_and_is_shown(inside, creature_parts, measure):
    trial = creature_parts()
    pictures = in_every_scene(trial.creature) * 2  # more than are read at once
    output = measure(pictures, trial, "night")
    rows = measured_rows(load_reader().read(as_pictures(pictures)), trial, "night")
    expected = bars(f"Creatures measured: {len(pictures)}", rows)
    assert dict(row[:2] for row in rows)["scene: night"] == f"2 of {len(pictures)}"
    assert to_pil(output.args[0])[0].tobytes() == expected.tobytes()
    shown = output.ui.as_dict()["images"]
    assert len(shown) == 1
    assert Image.open(inside.base / "temp" / shown[0]["filename"]).tobytes() == expected.tobytes()


def test_transparent_pictures_are_read_on_white(creature_parts, measure):
    trial = creature_parts()
    white = to_tensor([draw_creature(trial.creature, PICTURE_SIZE)])
    alpha = (white < 1).any(dim=-1, keepdim=True).float()
    ground = torch.cat([white * alpha, alpha], dim=-1)
    assert measure(ground, trial).args[1] == measure(white, trial).args[1] == 1.0


@pytest.mark.parametrize(("height", "width"), [(512, 512), (256, 250), (128, 256)])
def test_pictures_of_another_size_are_refused_with_both_sizes(creature_parts, measure, height, width):
    with pytest.raises(ValueError, match=f"pictures of 256x256 pixels, got {width}x{height}"):
        measure(torch.zeros(1, height, width, 3), creature_parts())


def test_no_picture_is_refused(creature_parts, measure):
    with pytest.raises(ValueError, match=r"got shape \[0, 256, 256, 3\]"):
        measure(torch.zeros(0, 256, 256, 3), creature_parts())


# Inside ComfyUI -----------------------------------------------------------------------------------------


def test_the_reader_is_in_comfyuis_hands(inside, creature_parts, measure):
    management = inside.comfy("model_management")
    management.unload_all_models()
    seen = []

    def look(*_, **__):
        seen.extend(type(model.model.model).__name__ for model in management.current_loaded_models)

    inside.comfy("utils").set_progress_bar_global_hook(look)
    try:
        measure(torch.zeros(1, 256, 256, 3), creature_parts())
    finally:
        inside.comfy("utils").set_progress_bar_global_hook(None)
    assert seen == ["CreatureReader"]
    management.unload_all_models()
    assert management.current_loaded_models == []


def test_cancelling_ends_the_reading_after_the_pictures_at_hand(inside, creature_parts, measure):
    management, utils, steps = inside.comfy("model_management"), inside.comfy("utils"), []

    def interrupt(value, total, *_, **__):
        steps.append((value, total))
        management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(interrupt)
    try:
        with pytest.raises(management.InterruptProcessingException):
            measure(torch.zeros(40, 256, 256, 3), creature_parts())
    finally:
        utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
    assert steps == [(1, 3)]


def measure_graph(size=PICTURE_SIZE, **measured):
    wanted = {part: part in GIVEN for part in PARTS}
    inputs = {"images": ["picture", 0], "creature": ["parts", 1], "scene": "any"} | measured
    return {
        "parts": node("PiT_CreatureParts", seed=7, species="mixed", **wanted),
        "picture": node("Tiny_Image", count=2, height=size, width=size, channels=3),
        "measure": node("PiT_MeasureCreatures", **inputs),
        "table": node("PreviewImage", images=["measure", 0]),
        "kept": node("PreviewAny", source=["measure", 1]),
    }


def test_in_a_graph_it_gives_a_picture_and_a_number(lab):
    result = lab.queue(measure_graph())
    assert result.status == "success", result.error
    shown, passed_on = (lab.view(result.outputs[name]["images"][0]) for name in ("measure", "table"))
    assert Image.open(io.BytesIO(shown)).tobytes() == Image.open(io.BytesIO(passed_on)).tobytes()
    assert 0 <= float(result.outputs["kept"]["text"][0]) < 0.5  # two plain coloured squares


@pytest.mark.parametrize(("graph", "status", "words"), [
    (measure_graph(size=64), "error", ["PiT_MeasureCreatures", "256x256", "64x64"]),
    (measure_graph(scene="night_meadow"), "refused", ["scene", "night_meadow"]),
    (measure_graph(creature=["parts", 0]), "refused", ["creature", "PIT_CREATURE"]),
])
def test_bad_input_is_one_clear_error(lab, graph, status, words):
    result = lab.queue(graph)
    assert result.status == status
    assert [word for word in words if word not in result.error] == []
    assert lab.queue(measure_graph()).status == "success"
