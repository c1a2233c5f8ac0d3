"""The graphs that make pictures for pOps operators run, and what they save is read as it is.

Their models are tiny. SAM3 and Depth Anything 3 have no tiny files: a drawn mask takes the place of what SAM3
finds, and the picture itself that of its depth.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pit.files.pictures import PictureError, decode_picture, open_picture
from pit.pops.training.layouts import read_operator_dataset
from pit.pops.training.prepare import Versions, prepare
from tests.comfyui.workflows import PAIRS, twin

LOADERS = {
    "CheckpointLoaderSimple": "Tiny_SDXL", "UNETLoader": "Tiny_Inpainting",
    "ControlNetLoader": "Tiny_Control",
}
SMALL = {
    "EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 1}, "GrowMask": {"expand": 2},
}
DEPTH = ("LoadDA3Model", "DA3Inference", "DA3Render")
VARIANTS = 2


def with_stand_ins(name: str, folder: str, seed: int, threshold: float = 0.5) -> dict:
    """The graph with tiny models, small pictures, and a drawn mask for what SAM3 finds."""
    graph = twin(name)
    for node in graph.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind in LOADERS:
            node |= {"class_type": LOADERS[kind], "inputs": {}}
        if kind == "SAM3_Detect":
            node["class_type"] = "Tiny_Detect"
            encoded = graph[inputs["conditioning"][0]]["inputs"]
            inputs |= {"threshold": threshold, "text": encoded["text"]}
        if kind == "PiT_OperatorPrompts":
            inputs |= {"folder": folder, "seed": seed}
            inputs |= {"kind.variants": VARIANTS} if "kind.variants" in inputs else {}
        inputs |= SMALL.get(kind, {})
    return without_depth(graph)


def without_depth(graph: dict) -> dict:
    """The graph without Depth Anything 3, whose picture goes where its depth went."""
    depth = {key: node for key, node in graph.items() if node["class_type"] in DEPTH}
    pictures = [node["inputs"]["image"] for node in depth.values() if "image" in node["inputs"]]
    for node in graph.values():
        inputs = node["inputs"]
        for name, value in inputs.items():
            if node["class_type"] not in DEPTH and isinstance(value, list) and value[0] in depth:
                inputs[name] = pictures[0]
    return {key: node for key, node in graph.items() if key not in depth}


@pytest.fixture(scope="module")
def made(comfyui) -> dict[str, Path]:
    """By the name of each graph, the folder that it has filled in two runs, with two seeds."""
    for name, kind in PAIRS.items():
        for seed in (0, 1):
            result = comfyui.queue(with_stand_ins(name, f"made_{kind}", seed))
            assert result.status == "success", (name, result.error)
    return {kind: comfyui.base / "output" / "pops_datasets" / f"made_{kind}" for kind in PAIRS.values()}


@pytest.mark.parametrize("kind, count", [("texture", 2 + VARIANTS), ("scene", 3), ("union", 3)])
def test_two_runs_with_drawn_masks_for_sam3_make_two_examples_and_nothing_else(made, kind, count):
    dataset = read_operator_dataset(made[kind], kind)
    assert len(dataset.examples) == 2 and dataset.skipped == ()
    for example in dataset.examples:
        paths = [path for files in example.files.values() for path in files]
        assert len(paths) == count
        assert len({open_picture(path).tobytes() for path in paths}) == count
        prepared = prepare(kind, example, Versions(2, 0))
        assert all(pictures for pictures in prepared.values())


def test_the_folders_are_offered_to_learn_from(made, comfyui):
    folders = comfyui.object_info()["PiT_TrainOperator"]["input"]["required"]["folder"][1]["options"]
    assert {f"output/{folder.name}" for folder in made.values()} <= set(folders)


def test_what_is_cut_out_is_what_was_found_in_the_picture(made):
    for example in read_operator_dataset(made["union"], "union").examples:
        picture = open_picture(example.files["picture"][0])
        boxes = set()
        for path in example.files["objects"]:
            cut_out = decode_picture(path)
            box = cut_out.getchannel("A").getbbox()
            assert cut_out.getchannel("A").crop(box).getcolors() == [(32 * 32, 255)]
            assert cut_out.convert("RGB").crop(box).tobytes() == picture.crop(box).tobytes()
            boxes.add(box)
        assert len(boxes) == 2  # each is where its own name is found


@pytest.mark.parametrize("kind", ["texture", "scene"])
def test_masks_are_white_where_the_object_was_found(made, kind):
    for example in read_operator_dataset(made[kind], kind).examples:
        mask = open_picture(example.files["mask"][0])
        assert sorted(mask.getcolors()) == [(32 * 32, (255,) * 3), (64 * 64 - 32 * 32, (0,) * 3)]
        assert mask.crop(mask.getbbox()).size == (32, 32)


@pytest.mark.parametrize("name", PAIRS)
def test_what_was_not_found_is_left_out_by_name(comfyui, name):
    kind = PAIRS[name]
    result = comfyui.queue(with_stand_ins(name, f"missed_{kind}", 2, threshold=1.0))
    assert result.status == "success", result.error
    [example] = read_operator_dataset(comfyui.base / "output/pops_datasets" / f"missed_{kind}", kind).examples
    with pytest.raises(PictureError, match="^Expected a (mask that covers something|cut-out) in .*, got a"):
        prepare(kind, example, Versions(1, 0))


def test_a_folder_that_leads_elsewhere_is_refused(comfyui):
    result = comfyui.queue(with_stand_ins("make_union_pairs_sdxl", "../../elsewhere", 0))
    assert result.status == "error" and "Expected" in str(result.error)
    assert not (comfyui.base.parent / "elsewhere").exists()
