"""PartCraft in a running ComfyUI, as graphs ask for it: from words to pictures and maps, and from pictures to
parts."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from pit.partcraft.files import PartWords, save_part_words
from pit.partcraft.mapper import TokenMapper
from pit.partcraft.prompt import Part, Vocabulary
from tests.comfyui.nodes.graphs import changed, node
from tests.comfyui.nodes.partcraft.test_finding_parts import drawn
from tests.encoders.test_dino import tiny

WIDTH = 48  # of the tiny Stable Diffusion 1.5


@pytest.fixture(scope="module")
def place(comfyui):
    """The running ComfyUI with part words, a DINOv2 and a folder of pictures."""
    models = comfyui.base / "models"
    for folder in ("part_words", "clip_vision"):
        (models / folder).mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mapper = TokenMapper(2, 3, WIDTH, 1)
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q.lora_{}.weight"
    lora = {key.format("down"): torch.ones(4, 32) / 50, key.format("up"): torch.ones(32, 4) / 50}
    known = Vocabulary((Part("head", 3), Part("wing", 3)), ("robin", "jay", "owl"))
    save_part_words(models / "part_words" / "birds.safetensors", PartWords(mapper, known, lora, "birds"))
    dino = tiny(patch_size=4).state_dict()
    save_file({key: each.clone() for key, each in dino.items()}, models / "clip_vision" / "dino.safetensors")
    pictures = comfyui.base / "input" / "balls"
    pictures.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        drawn(number).save(pictures / f"{number}.png")
    return comfyui


def draw_graph(**changes) -> dict:
    graph = {
        "tiny": node("Tiny_SD15"),
        "words": node("PiT_LoadPartCraft", file="birds.safetensors", names="as the file says"),
        "apply": node(
            "PiT_ApplyPartCraft", model=["tiny", 0], clip=["tiny", 1], part_words=["words", 0], strength=1.0,
            syntax="words",
        ),
        "pick": node(
            "PiT_PartWords", file="birds.safetensors", file__part="head", file__whose="owl",
            file__mixed_with="jay", weight=1.2, text="a photo of a <wing:robin>",
        ),
        "positive": node("CLIPTextEncode", clip=["apply", 1], text=["pick", 0]),
        "negative": node("CLIPTextEncode", clip=["apply", 1], text="<wing:jay>, blurry"),
        "attention": node(
            "PiT_PartAttention", model=["apply", 0], positive=["positive", 0], size="a 16th",
        ),
        "latent": node("EmptyLatentImage", width=96, height=64, batch_size=2),
        "sampler": node(
            "KSampler", model=["attention", 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["latent", 0], seed=0, steps=2, cfg=5.0, sampler_name="euler", scheduler="normal",
            denoise=1.0,
        ),
        "image": node("VAEDecode", samples=["sampler", 0], vae=["tiny", 2]),
        "maps": node("PiT_PartAttentionMaps", attention=["attention", 1], image=["image", 0]),
        "save": node("SaveImage", images=["maps", 1], filename_prefix="parts"),
    }
    return changed(graph, changes)


def find_graph(**changes) -> dict:
    graph = {
        "dino": node("PiT_LoadDino", file="dino.safetensors"),
        "find": node(
            "PiT_FindParts", clip_vision=["dino", 0], pictures="folder", pictures__folder="balls", parts=3,
            codes=2, seed=42, foreground="automatic", start="published",
        ),
        "saved": node(
            "PiT_SavePartClusters", clusters=["find", 0], name="balls", part_names="", code_names="",
        ),
        "picture": node("LoadImage", image="balls/3.png"),
        "label": node(
            "PiT_LabelParts", clip_vision=["dino", 0], clusters=["saved", 0], image=["picture", 0], parts="",
            view="whole picture",
        ),
        "measure": node(
            "PiT_MeasurePartWords", clip_vision=["dino", 0], clusters=["saved", 0], image=["picture", 0],
            prompts=["label", 2], background=False,
        ),
        "preview": node("PreviewImage", images=["label", 1]),
    }
    return changed(graph, changes)


def test_words_become_pictures_and_maps(place):
    result = place.queue(draw_graph())
    assert result.status == "success", result.error
    assert len(result.outputs["save"]["images"]) == 2 * 2
    assert result.outputs["pick"]["text"] == ["a photo of a <wing:robin> (<head:owl|jay>:1.2)"]
    assert "1 of 1 modules matched" in result.outputs["apply"]["text"][0]
    again = place.queue(draw_graph(maps__image=["image", 0]))
    assert {event["data"]["node"] for event in again.events if event["type"] == "executing"} == {None}


def test_a_folder_becomes_parts_words_and_scores(place):
    result = place.queue(find_graph())
    assert result.status == "success", result.error
    assert len(result.outputs["find"]["images"]) == 1 and len(result.outputs["label"]["images"]) == 1
    assert "written: balls.safetensors" in result.outputs["saved"]["text"][0]
    assert "found 100.0%" in result.outputs["measure"]["text"][0]
    graph = find_graph()
    graph["loaded"] = node("PiT_LoadPartClusters", file="balls.safetensors", foreground="as the file says")
    graph["label"]["inputs"]["clusters"] = ["loaded", 0]
    del graph["find"], graph["saved"], graph["measure"]
    assert place.queue(graph).status == "success"


@pytest.mark.parametrize("graph, node_type, words", [
    (draw_graph(pick__text="<haed:owl>"), "CLIPTextEncode", "Did you mean head?"),
    (draw_graph(pick__file="gone.safetensors"), "PiT_PartWords", "is not there. Choose birds.safe"),
    (draw_graph(pick__file__whose="eagle"), "PiT_PartWords", "'eagle' not in ['robin', 'jay', 'owl']"),
    (draw_graph(words__file="gone.bin"), "PiT_LoadPartCraft", "python -m pit download partcraft-cub"),
    (draw_graph(negative__text="<wing:4>"), "CLIPTextEncode", "from 1 to 3 for the part wing, got 4"),
    (draw_graph(positive__text="no words"), "PiT_PartAttention", "expected a prompt with part words"),
    (find_graph(find__codes=13), "PiT_FindParts", "1 to 12 codes for 12 pictures"),
    (find_graph(find__pictures__folder="none"), None, ""),
    (find_graph(measure__prompts="a ball"), "PiT_MeasurePartWords", "Expected part words in the prompts"),
    (find_graph(saved__part_names="a, a"), "PiT_SavePartClusters", "'a' twice"),
])
def test_what_cannot_be_done_is_told_and_comfyui_goes_on(place, graph, node_type, words):
    graph = {name: each for name, each in graph.items()}
    result = place.queue(graph)
    assert result.status != "success" and words in str(result.error)
    assert node_type is None or node_type in str(result.error)
    assert place.queue(draw_graph()).status == "success"
