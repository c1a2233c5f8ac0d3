"""The graphs for published models run, but for those of SDXL, with tiny ones in their place."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image, ImageChops, ImageStat
from safetensors.torch import save_file

from pit.ip_adapter.projection import ImageProjection
from tests.comfyui.nodes.partcraft.test_finding_parts import drawn
from tests.comfyui.nodes.published import TOKEN_DIM, key_value_state
from tests.comfyui.tiny_parts import write_clothes, write_dino, write_parts2whole, write_words
from tests.comfyui.workflows import twin
from tests.pops.test_kandinsky import write_part
from tests.pops.tiny import write_base, write_operator

WIDTH = TOKEN_DIM // 2  # of the embeddings of the tiny encoders, and of the golden decoder
WEIGHTS = "diffusion_pytorch_model.safetensors"
LOADERS = {
    "CLIPVisionLoader": "Tiny_Vision", "UNETLoader": "Tiny_Insertion",
    "VAELoader": "Tiny_VAE",
}
"""Nodes whose outputs are in the order of the stock loaders."""
FILES = {
    "PiT_LoadBaseIPAdapter": {"file": "tiny_base.safetensors"},
    "PiT_LoadEmbeddingOptimizer": {"file": "tiny.pt"},
    "PiT_LoadKandinskyDecoder": {"file": f"tiny/unet/{WEIGHTS}", "movq": f"tiny/movq/{WEIGHTS}"},
    "PiT_LoadDino": {"file": "templates/dino.safetensors"},
    "PiT_LoadPartCraft": {"file": "templates/partcraft-cub/pytorch_model_1.bin"},
    "PiT_LoadParts2Whole": {"folder": "templates"},
    "PiT_ClothesParser": {"file": "templates/model.safetensors"},
}
SMALL = {
    "KSampler": {"steps": 1}, "PiT_InsertionSchedule": {"steps": 2}, "PiT_EmptyLatent": {"percent": 25},
    "PiT_Combine": {"steps": 2}, "PiT_Instruct": {"steps": 2},
    "EmptyLatentImage": {"width": 64, "height": 96}, "PiT_PartAttention": {"size": "a 16th"},
    "PiT_FindParts": {"parts": 3},
    "PiT_TrainPartCraft": {
        "steps": 2, "save_every": 2, "size": 64, "map_level": 1, "batch": 2, "accumulation": 1, "variants": 1,
    },
}
PICTURES = 12  # to find parts in


@pytest.fixture(scope="module")
def models(comfyui, golden):
    """Tiny files for our own loaders."""
    folder = comfyui.base / "models"
    for seed, kind in enumerate(("texturing", "instruct", "scene")):
        write_operator(folder / "pops/templates" / kind / "learned_prior.pth", seed, width=WIDTH)
    write_base(folder / "kandinsky_prior/templates", width=WIDTH)
    for part in ("unet", "movq"):
        write_part(golden, folder / "kandinsky_decoder/tiny", part)
    torch.manual_seed(3)
    projection = ImageProjection(WIDTH, TOKEN_DIM, 4).state_dict()
    state = {f"image_proj.{key}": each for key, each in projection.items()}
    state |= {f"ip_adapter.{key}": each for key, each in key_value_state().items()}
    save_file(state, folder / "ipadapter/tiny_base.safetensors")
    write_words(folder / "part_words/templates/partcraft-cub")
    write_dino(folder / "clip_vision/templates/dino.safetensors")
    write_parts2whole(golden, folder / "parts2whole/templates")
    write_clothes(folder / "clothes_segmenter/templates")
    pictures = comfyui.base / "input/my_pictures"
    pictures.mkdir(parents=True)
    for number in range(PICTURES):
        drawn(number).save(pictures / f"{number}.png")
    return folder


def with_tiny_models(graph: dict, checkpoint: str) -> dict:
    """The same with tiny models, few steps, and few small pictures.

    checkpoint: the node that gives a tiny one.
    """
    for node in graph.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind in LOADERS or kind == "CheckpointLoaderSimple":
            node |= {"class_type": LOADERS.get(kind, checkpoint), "inputs": {}}
        if kind == "PiT_LoadOperator":
            inputs |= {"file": f"templates/{inputs['file']}", "base": f"templates/prior/{WEIGHTS}"}
        inputs |= FILES.get(kind, {}) | SMALL.get(kind, {})
        if kind == "PiT_Combine":
            inputs["count"] = min(inputs["count"], 2)
        if kind == "PiT_CreatureKinds":
            inputs["count"] = min(inputs["count"], PICTURES)
    return graph


@pytest.fixture
def run(comfyui, models):
    """Runs a graph; gives the pictures that each node has saved, by its title."""
    def finished(name: str) -> dict[str, list[Image.Image]]:
        graph = with_tiny_models(twin(name), "Tiny_SD15" if name.endswith("_sd15") else "Tiny_SDXL")
        result = comfyui.queue(graph)
        assert result.status == "success", result.error
        return {
            node["_meta"]["title"]: [
                Image.open(io.BytesIO(comfyui.view(image))).convert("RGB")
                for image in result.outputs[key]["images"]
            ]
            for key, node in graph.items() if node["class_type"] == "SaveImage"
        }

    return finished


def assert_all_differ(pictures: list[Image.Image], count: int):
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == count
    assert len({picture.size for picture in pictures}) == 1


def columns(strip: Image.Image, count: int) -> list[Image.Image]:
    """The pictures of a labelled strip."""
    side = strip.width // count
    return [strip.crop((left * side, strip.height - side, (left + 1) * side, strip.height))
            for left in range(count)]


@pytest.mark.parametrize("decoder", ["sdxl", "kandinsky"])
@pytest.mark.parametrize("name, title", [
    ("texture_an_object", "Textured objects"), ("put_it_in_a_scene", "In the scene"),
])
def test_two_pictures_become_others(run, name, title, decoder):
    assert_all_differ(run(f"{name}_{decoder}")[title], 2)


@pytest.mark.parametrize("decoder", ["sdxl", "kandinsky"])
def test_each_word_has_a_picture_beside_that_of_the_object(run, decoder):
    (strip,) = run(f"say_it_with_a_word_{decoder}")["Said with words"]
    assert_all_differ(columns(strip, 4), 4)


@pytest.mark.parametrize("decoder", ["sdxl", "kandinsky"])
def test_a_strip_shows_what_each_operator_adds(run, decoder):
    (strip,) = run(f"chain_operators_{decoder}")["Step by step"]
    assert_all_differ(columns(strip, 4), 4)


def test_an_object_is_inserted(run):
    (picture,) = run("insert_an_object_sd15")["With the object"]
    assert picture.size == (512, 512)


def test_many_objects_are_inserted_and_then_another_one(run):
    pictures = run("insert_many_sd15")
    first, second = pictures["One object in each"], pictures["And the other in all"]
    assert_all_differ(first, 4)
    assert_all_differ(second, 4)
    for before, after in zip(first, second, strict=True):
        assert ImageStat.Stat(ImageChops.difference(before, after)).sum != [0, 0, 0]


def test_part_words_are_drawn_and_looked_for(run):
    pictures = run("part_words_sd15")
    assert_all_differ(pictures["Birds of these parts"], 4)
    assert_all_differ(pictures["Where each word acts"], 4 * 3)


def test_parts_are_found_and_saved_and_give_masks_of_other_pictures(run, models):
    masks = run("find_the_parts_sd15")["A mask of each part"]
    assert len(masks) == 2 * 3
    for own in (masks[:3], masks[3:]):  # each place is of one part
        assert sum(ImageStat.Stat(mask.convert("L")).mean[0] for mask in own) == pytest.approx(255)
    assert (models / "part_clusters/my_parts.safetensors").is_file()


def test_words_are_trained_on_a_folder_and_drawn(run, models):
    assert_all_differ(run("train_part_words_sd15")["In your own words"], 4)
    assert (models / "part_words/my_parts/part_words.safetensors").is_file()


def test_a_figure_is_dressed(run):
    (picture,) = run("dress_a_figure_sd15")["Dressed"]
    assert picture.size == (64, 96) and len(picture.getcolors(64 * 96)) > 50
