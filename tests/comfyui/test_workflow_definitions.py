"""Every workflow fits the definitions of its nodes, those for published models too, which cannot run here."""

import re
from collections.abc import Iterable

import pytest

from dev import ROOT
from dev.assembly import all_nodes, plain
from pit.files.published import published_files
from tests.comfyui.definitions import FILE_INPUTS, faults
from tests.comfyui.pages import open_workflow
from tests.comfyui.workflows import NAMES, PUBLISHED, template, twin

HUB = "https://huggingface.co"
CHECKPOINT = "checkpoints/sd_xl_base_1.0.safetensors"
SD15 = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
CONVERTED = "diffusion_models/object_insertion_unet.safetensors"
"""A published file that `python -m pit convert` has written anew, which no page can offer."""
OTHER_URLS = {
    CHECKPOINT: f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    SD15: f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "clip_vision/parts2whole/model.safetensors": (
        f"{HUB}/huanngzh/Parts2Whole/resolve/main/image_encoder/model.safetensors"
    ),
    "geometry_estimation/depth_anything_3_mono_large.safetensors": (
        f"{HUB}/Comfy-Org/Depth-Anything-3/resolve/main/geometry_estimation/"
        "depth_anything_3_mono_large.safetensors"
    ),
    "controlnet/controlnet-depth-sdxl-1.0.safetensors": (
        f"{HUB}/diffusers/controlnet-depth-sdxl-1.0/resolve/main/diffusion_pytorch_model.fp16.safetensors"
    ),
    "checkpoints/sam3.1_multiplex_fp16.safetensors": (
        f"{HUB}/Comfy-Org/sam3.1/resolve/main/checkpoints/sam3.1_multiplex_fp16.safetensors"
    ),
    "diffusion_models/sdxl-inpainting-0.1.safetensors": (
        f"{HUB}/diffusers/stable-diffusion-xl-1.0-inpainting-0.1/resolve/main/unet/"
        "diffusion_pytorch_model.fp16.safetensors"
    ),
}
"""Files for ComfyUI's own nodes: the page offers them, the download command does not know them."""

OUR_FILES = {
    "PiT_LoadIPAdapter": "ipadapter", "PiT_LoadIPPrior": "ip_prior", "PiT_ApplyIPLora": "loras",
    "PiT_LoadBaseIPAdapter": "ipadapter", "PiT_LoadOperator": "pops",
    "PiT_LoadKandinskyDecoder": "kandinsky_decoder", "PiT_LoadEmbeddingOptimizer": "object_insertion",
    "PiT_LoadPartCraft": "part_words", "PiT_LoadDino": "clip_vision",
    "PiT_ClothesParser": "clothes_segmenter",
}
LISTS = {"PiT_PartWords"}
BYPASSED = 4  # the mode of nodes that the page leaves out


@pytest.fixture(scope="module")
def definitions(comfyui) -> dict[str, dict]:
    return comfyui.object_info()


@pytest.mark.parametrize("name", NAMES)
def test_every_node_fits_its_definition(definitions, name):
    assert faults(twin(name), definitions) == []


@pytest.mark.parametrize(
    ("key", "changes", "fault"),
    [
        ("16", {"sampler_name": "oiler"}, "16.sampler_name is 'oiler'"),
        ("16", {"steps": 0}, "16.steps is 0"),
        ("16", {"cfg": "5"}, "16.cfg is '5'"),
        ("16", {"model": ["1", 1]}, "16.model wants MODEL, gets CLIP"),
        ("16", {"model": ["1", 3]}, "16.model comes from output 3 of 3"),
        ("16", {"model": ["99", 0]}, "16.model comes from the missing node 99"),
        ("16", {"model": "a model"}, "16.model is 'a model', wants MODEL"),
        ("16", {"stepps": 4}, "16.stepps is no input of KSampler"),
        ("10", {"parts.part0": ["1", 0]}, "10.parts.part0 wants IMAGE, gets MODEL"),
        ("10", {"reference_slot": 1}, "10.reference_slot is 1, wants BOOLEAN"),
    ],
)
def test_a_graph_that_does_not_fit_is_found_out(definitions, key, changes, fault):
    graph = twin("piece_it_together_sdxl")
    graph[key]["inputs"].update(changes)
    assert [found[:len(fault)] for found in faults(graph, definitions)] == [fault]


def test_missing_inputs_and_nodes_are_found_out(definitions):
    graph = twin("piece_it_together_sdxl")
    del graph["10"]["inputs"]["parts.part0"], graph["18"]["inputs"]["filename_prefix"]
    graph["17"]["class_type"] = "VAEDecoder"
    assert faults(graph, definitions) == [
        "10.parts.part0 is missing", "17: there is no node VAEDecoder", "18.filename_prefix is missing",
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_graph_wants_the_files_that_the_download_command_writes(name):
    targets = [file.target for file in published_files()]
    wanted = files_of(twin(name).values()) - OTHER_URLS.keys() - {CONVERTED}
    assert [file for file in wanted if not any(is_at(file, target) for target in targets)] == []


def is_at(file: str, target: str) -> bool:
    """Whether a file is what is downloaded, or lies in the folder that is."""
    return file.startswith(target) if target.endswith("/") else file == target


def files_of(nodes: Iterable[dict]) -> set[str]:
    """The files that the loaders of a graph in API format name, below ComfyUI's models."""
    names = FILE_INPUTS.keys() - {"image"} | {"file"}
    return {
        f"{FILE_INPUTS.get(name) or OUR_FILES[node['class_type']]}/{node['inputs'][name]}"
        for node in nodes if node["class_type"] not in LISTS for name in node["inputs"].keys() & names
    }


def offered_by(nodes: Iterable[dict]) -> set[str]:
    """The files that the page can offer for nodes of a graph for people."""
    urls = {file.target: f"{HUB}/{file.repo}/resolve/main/{file.path}" for file in published_files()}
    found = set()
    for node in nodes:
        for model in node["properties"].get("models", ()):
            # The page compares the name with what is chosen in the node.
            assert model["name"] in node["widgets_values"]
            place = f"{model['directory']}/{model['name']}"
            assert model["url"] == (urls | OTHER_URLS)[place]
            found.add(place)
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_can_offer_every_file_that_a_graph_for_published_models_names(name):
    nodes = all_nodes(switched_on(template(name)))
    assert offered_by(nodes) == files_of(twin(name).values()) - {CONVERTED}


def switched_on(graph: dict) -> dict:
    """The graph without the nodes that are bypassed, and without what is inside of them."""
    nodes = [node for node in graph["nodes"] if node["mode"] != BYPASSED]
    kinds = {node["type"] for node in nodes}
    subgraphs = [each for each in graph.get("definitions", {}).get("subgraphs", ()) if each["id"] in kinds]
    return {"nodes": nodes, "definitions": {"subgraphs": subgraphs}}


def switch_all_on(page, name: str) -> tuple[dict, set[str]]:
    """What the page queues when nothing is bypassed, and which nodes the twin does not have."""
    open_workflow(page, name)
    page.evaluate("window.app.graph.nodes.forEach((node) => { node.mode = 0 })")
    graph = plain(page.evaluate("window.app.graphToPrompt().then(({ output }) => output)"))
    return graph, graph.keys() - twin(name).keys()


def test_depth_can_be_switched_on(page, definitions):
    """The bypassed nodes fit as well, stand between the prompts and the sampler, and offer their files."""
    name = "texture_an_object_sdxl"
    graph, off = switch_all_on(page, name)
    assert faults(graph, definitions) == [] and len(off) == 5
    (apply,) = (key for key in off if graph[key]["class_type"] == "ControlNetApplyAdvanced")
    (sampler,) = (node["inputs"] for node in graph.values() if node["class_type"] == "KSampler")
    assert (sampler["positive"], sampler["negative"]) == ([apply, 0], [apply, 1])
    before = twin(name)["17"]["inputs"]
    given = graph[apply]["inputs"]
    assert (given["positive"], given["negative"]) == (before["positive"], before["negative"])
    nodes = [node for node in all_nodes(template(name)) if str(node["id"]) in off]
    assert offered_by(nodes) == files_of(graph[key] for key in off) != set()


def test_a_pose_can_be_switched_on(page, definitions):
    """The bypassed nodes fit as well, and the pose goes where the references go."""
    graph, off = switch_all_on(page, "dress_a_figure_sd15")
    assert faults(graph, definitions) == [] and len(off) == 2
    (pose,) = (key for key in off if graph[key]["class_type"] == "PiT_PoseMap")
    (apply,) = (node["inputs"] for node in graph.values() if node["class_type"] == "PiT_ApplyParts2Whole")
    (encode,) = (node["inputs"] for node in graph.values() if node["class_type"] == "PiT_EncodeReferences")
    assert apply["pose"] == [pose, 0] and graph[pose]["inputs"]["latent"] == encode["latent"]
    assert graph[pose]["inputs"]["parts2whole"] == apply["parts2whole"] == encode["parts2whole"]


@pytest.mark.parametrize("name", NAMES)
def test_no_graph_starts_from_pictures_that_a_newcomer_does_not_have(name):
    assert [node for node in twin(name).values() if node["class_type"] == "LoadImage"] == []


def test_the_readme_names_the_files_that_the_templates_ask_for():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wanted = {file for name in PUBLISHED for file in files_of(twin(name).values())}
    for file in wanted:
        folder, name = file.rsplit("/", 1)
        assert f"`{folder}`" in text and re.search(rf"[`/]{re.escape(name)}`", text), file


@pytest.mark.parametrize("name", NAMES)
def test_latents_follow_the_tokens_wherever_there_are_tokens(name):
    """Elsewhere, their number and size would have to be set by hand in a second node."""
    nodes = twin(name)
    by_hand = [key for key, node in nodes.items() if node["class_type"] == "EmptyLatentImage"]
    links = [[key, 0] for key in by_hand]
    readers = [
        node["class_type"] for node in nodes.values() for value in node["inputs"].values() if value in links
    ]
    has_tokens = any(node["class_type"] == "PiT_ApplyTokens" for node in nodes.values())
    assert "KSampler" not in readers or not has_tokens
    assert "LatentBatchSeedBehavior" not in readers
