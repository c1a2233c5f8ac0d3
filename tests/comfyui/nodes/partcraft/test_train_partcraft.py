"""Train PartCraft in a real ComfyUI: from a folder of pictures to words that draw, and Cancel."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pit.partcraft.files import load_part_words
from tests.comfyui.nodes.graphs import changed, node
from tests.comfyui.nodes.partcraft.shared import folder_of, nodes
from tests.comfyui.nodes.partcraft.test_finding_parts import drawn, find
from tests.comfyui.nodes.test_single_file import filled_clip
from tests.comfyui.nodes.test_training import progress_of
from tests.encoders.test_dino import tiny
from tests.golden import assert_equal, relative_error

COUNT, PARTS = 12, 3
SETTINGS = {
    "folder": "balls_to_train", "preset": "published", "steps": 4, "learning_rate": 1e-2, "size": 64,
    "save_every": 2, "seed": 0, "map_level": 1, "batch": 2, "accumulation": 1, "variants": 1,
}
NODE = "Train PartCraft"


def write_balls(base, count=COUNT):
    folder = base / "input" / "balls_to_train"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawn(number).save(folder / f"{number}.png")


@pytest.fixture
def said(inside, monkeypatch) -> list[str]:
    """What the node says in the page."""
    texts: list[str] = []
    monkeypatch.setattr(nodes(inside, "train"), "say_and_log", lambda node, text: texts.append(text))
    return texts


@pytest.fixture(scope="module")
def sd15(inside):
    """MODEL, CLIP and VAE of a tiny Stable Diffusion 1.5."""
    return inside.tiny.tiny_sd15(), inside.tiny.tiny_clip(), inside.tiny.tiny_vae()


@pytest.fixture(scope="module")
def clusters(inside, dino):
    from tests.comfyui.nodes.partcraft.test_finding_parts import batch

    return find(inside, dino, batch(COUNT)).args[0]


@pytest.fixture
def train(inside, sd15, dino, clusters):
    """Runs the node as ComfyUI does, in inference mode; returns its outputs."""
    write_balls(inside.base)

    def run(name, **changes):
        given = dict(zip(("model", "clip", "vae"), sd15, strict=True))
        given |= {"clip_vision": dino, "clusters": clusters} | SETTINGS | changes
        with torch.inference_mode():
            try:
                return nodes(inside, "train").TrainPartCraft.execute(name=name, **given).args
            finally:
                assert torch.is_inference_mode_enabled()

    return run


def file_of(inside, name):
    return folder_of(inside) / name / "part_words.safetensors"


def same(first, second):
    return all(
        one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        for one, two in ((first.mapper.state_dict(), second.mapper.state_dict()), (first.lora, second.lora))
    )


def words_graph(name, **changes):
    """From a folder to parts, to words for them, and to a picture of one."""
    graph = {
        "tiny": node("Tiny_SD15"), "dino": node("PiT_LoadDino", file="dino.safetensors"),
        "find": node(
            "PiT_FindParts", clip_vision=["dino", 0], pictures="folder", pictures__folder="balls_to_train",
            parts=PARTS, codes=2, seed=42, foreground="automatic", start="published",
        ),
        "train": node(
            "PiT_TrainPartCraft", model=["tiny", 0], clip=["tiny", 1], vae=["tiny", 2],
            clip_vision=["dino", 0], clusters=["find", 0], name=name, **SETTINGS,
        ),
        "apply": node(
            "PiT_ApplyPartCraft", model=["tiny", 0], clip=["tiny", 1], part_words=["train", 0], strength=1.0,
            syntax="words",
        ),
        "positive": node("CLIPTextEncode", clip=["apply", 1], text="a photo of a <1:0> <2:1>"),
        "negative": node("CLIPTextEncode", clip=["apply", 1], text=""),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": node(
            "KSampler", model=["apply", 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["latent", 0], seed=0, steps=2, cfg=5.0, sampler_name="euler", scheduler="normal",
            denoise=1.0,
        ),
        "image": node("VAEDecode", samples=["sampler", 0], vae=["tiny", 2]),
        "save": node("SaveImage", images=["image", 0], filename_prefix="words"),
    }
    return changed(graph, changes)


@pytest.fixture
def place(lab):
    """The running ComfyUI with a DINOv2 and a folder of pictures."""
    (lab.base / "models" / "clip_vision").mkdir(exist_ok=True)
    dino = tiny(patch_size=4).state_dict()
    save_file({key: each.clone() for key, each in dino.items()},
              lab.base / "models" / "clip_vision" / "dino.safetensors")
    write_balls(lab.base)
    return lab


def test_a_folder_becomes_words_and_pictures_in_one_graph(place):
    result = place.queue(words_graph("first"))
    assert result.status == "success", result.error
    assert len(result.outputs["save"]["images"]) == 1 and result.outputs["train"]["images"]
    assert "modules matched" in result.outputs["apply"]["text"][0]
    folder = place.base / "models" / "part_words" / "first"
    assert {path.name for path in folder.iterdir()} >= {"part_words.safetensors", "run.json", "metrics.csv"}
    offered = place.object_info()["PiT_LoadPartCraft"]["input"]["required"]["file"][1]["options"]
    assert "first/part_words.safetensors" in offered
    more = words_graph("first", train__steps=6)
    more["loaded"] = node("PiT_LoadPartCraft", file="first/part_words.safetensors", names="as the file says")
    more["apply"]["inputs"]["part_words"] = ["loaded", 0]
    again = place.queue(more)
    assert again.status == "success", again.error
    assert progress_of(again, "train")[-2:] == [5, 6]


@pytest.mark.parametrize("changes, words", [
    ({"train__folder": "none"}, "expected a folder inside ComfyUI's input folder"),
    ({"train__name": "../none"}, "leads"), ({"train__size": 60}, "60"),
    ({"train__map_level": 8}, "got none. Take another size of picture"),
    ({"train__map_level": 3}, "power of 2, got 3"),
    ({"train__codes_by": "folders"}, "a folder for each class"),
    ({"train__clip_vision": ["other", 3]}, "expected a DINOv2 as its CLIP_VISION"),
    ({"train__model": ["other", 0]}, "expected the CLIP of the model, with clip_l and clip_g"),
])
def test_what_cannot_be_trained_is_told_and_comfyui_goes_on(place, changes, words):
    graph = words_graph("refused", **changes)
    graph["other"] = node("Tiny_Models", vision_width=64)
    result = place.queue(graph)
    assert result.status != "success" and words in str(result.error), result.error
    assert place.queue({"tiny": graph["tiny"], "latent": graph["latent"], "image": node(
        "VAEDecode", samples=["latent", 0], vae=["tiny", 2]), "save": graph["save"]}).status == "success"


def test_what_comes_out_is_what_the_file_holds(inside, train):
    words, chart = train("plain", preset="recommended")
    assert same(words, load_part_words(file_of(inside, "plain"))) and chart.ndim == 4
    assert words.vocabulary.names() and words.lora and words.dim == 48
    recipe = json.loads((file_of(inside, "plain").parent / "run.json").read_text())["recipe"]
    assert (recipe["batch"], recipe["attention_form"], recipe["flips"]) == (2, "present", True)
    train("chosen", attention_form="present", masked=True, class_name=" toy ", rank=2)
    recipe = json.loads((file_of(inside, "chosen").parent / "run.json").read_text())["recipe"]
    assert (recipe["attention_form"], recipe["masked"], recipe["class_name"], recipe["rank"]) == (
        "present", True, "toy", 2)


@pytest.fixture(scope="module")
def sdxl(inside):
    """MODEL, CLIP and VAE of a tiny SDXL."""
    model = inside.tiny.tiny_sdxl()
    return model, filled_clip(inside, inside.tiny.TinySDXL(inside.tiny.UNET)), inside.tiny.tiny_vae()


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_comfyui_reads_and_draws_what_was_trained(inside, train, request, base):
    """The trainer's text encoders and UNet with words and LoRA, and ComfyUI's after Apply PartCraft."""
    model, clip, vae = request.getfixturevalue(base)
    level = 1 if base == "sd15" else 2
    words, _ = train(f"parity_{base}", model=model, clip=clip, vae=vae, map_level=level)
    patched, reading = nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 1.0).args
    engine, copies = inside.pack("pit.partcraft.training.painter"), nodes(inside, "training_models")
    names = copies.check_base(model, clip)
    with torch.inference_mode(False), torch.no_grad():
        encoders = [copies.text_encoder_of(clip, name) for name in names]
        tokens = inside.pack("pit.partcraft.training.texts").clip_tokens(PARTS, len(encoders))
        unet = copies.unet_of(patched, torch.float32)
        painter = engine.PartPainter(unet, encoders, words.mapper, tokens.words, level)
        codes = torch.tensor([[words.mapper.num_codes, 0, 1]])
        ids = tokens.ids(["a photo of a", 1, 2, "toy"])[None]
        context, more = painter.read(ids, codes, torch.zeros(1, 6))
    with torch.inference_mode():
        import nodes as comfyui

        found = comfyui.CLIPTextEncode().encode(reading, "a photo of a <1:0> <2:1> toy")[0][0]
    assert_equal(found[0], context)
    if base == "sdxl":
        assert_equal(found[1]["pooled_output"], more["text_embeds"])
        return
    x, times = torch.randn(1, 4, 8, 8), torch.tensor([300.0])
    with torch.inference_mode():
        expected = unet(x, times, context).sample
        inside.comfy("model_management").load_models_gpu([patched])
        drawn_by_comfyui = patched.model.diffusion_model(x, times, context)
        inside.comfy("model_management").unload_all_models()
        plain = copies.unet_of(model, torch.float32)(x, times, context).sample
    assert relative_error(drawn_by_comfyui, expected) < 1e-4
    assert relative_error(plain, expected) > 1e-3


def test_it_trains_under_the_patches_of_model_and_clip(inside, sd15):
    model, clip, _ = sd15
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
    own = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    patched, reading, copies = model.clone(), clip.clone(), nodes(inside, "training_models")
    for patcher, name in ((patched, key), (reading.patcher, own)):
        weight = patcher.model_state_dict()[name]
        patcher.add_patches({name: ("diff", (torch.ones_like(weight),))}, 1.0)
    with torch.inference_mode(False):
        unets = [copies.unet_of(each, torch.float32) for each in (model, patched)]
        readers = [copies.text_encoder_of(each, "clip_l") for each in (clip, reading)]
    weights = [unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_q.weight for unet in unets]
    assert_equal(weights[1], weights[0] + 1)
    layers = [reader.text_model.encoder.layers[0].mlp.fc1.weight for reader in readers]
    assert_equal(layers[1], layers[0] + 1)
    assert weights[0].data_ptr() != model.model_state_dict()[key].data_ptr()


def test_pictures_have_the_size_that_the_model_draws(inside, sd15, shipped, creature_sd15, caplog):
    copies = nodes(inside, "training_models")
    for model, clip, size in ((*sd15[:2], 512), (*creature_sd15[:2], 256), (*shipped[:2], 256)):
        assert copies.picture_size(model, copies.check_base(model, clip)) == size
    assert "doesn't exist" not in caplog.text


def test_the_base_like_sd15_is_copied_for_training(inside, creature_sd15):
    model, clip, _ = creature_sd15
    copies = nodes(inside, "training_models")
    with torch.inference_mode(False), torch.no_grad():
        unet = copies.unet_of(model, torch.float32)
        encoder = copies.text_encoder_of(clip, "clip_l")
    x, times, context = torch.randn(2, 12, 16, 16), torch.tensor([300.0, 10.0]), torch.randn(2, 77, 96)
    with torch.inference_mode():
        expected = unet(x, times, context).sample
        inside.comfy("model_management").load_models_gpu([model])
        assert relative_error(model.model.diffusion_model(x, times, context), expected) < 1e-4
        tokens = clip.tokenize("a red ball")
        ids = torch.tensor([[token for token, _ in tokens["l"][0]]])
        assert relative_error(clip.encode_from_tokens(tokens), encoder(ids).last_hidden_state) < 1e-4


def test_cancel_stops_at_the_next_step_and_going_on_is_as_never_having_stopped(inside, train):
    management, utils = inside.comfy("model_management"), inside.comfy("utils")

    def cancel(value, total, preview, **_):
        if (value, total) == (2, 5):  # not the bar of the pictures that are encoded first
            management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(cancel)
    try:
        with pytest.raises(management.InterruptProcessingException):
            train("stopped", steps=5)
    finally:
        utils.set_progress_bar_global_hook(None)
    folder = file_of(inside, "stopped").parent / "checkpoints"
    assert max(path.name for path in folder.iterdir()) == "step_00000002"
    train("stopped", steps=5)
    train("whole", steps=5)
    assert same(load_part_words(file_of(inside, "stopped")), load_part_words(file_of(inside, "whole")))
    with pytest.raises(ValueError, match="rank was 4 and is now 2"):
        train("whole", rank=2)


def test_masks_are_worked_out_once(inside, train, monkeypatch):
    train("once")
    models, seen = nodes(inside, "training_models"), []
    looked = models.features_of
    monkeypatch.setattr(models, "features_of", lambda *given: seen.append(0) or looked(*given))
    train("once", steps=6)
    assert not seen
    train("other_size", size=72)
    assert len(seen) == 2 * COUNT


def test_training_takes_nothing_from_the_generator_of_others(train):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train("polite")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_used_is_refused_before_anything_is_computed(inside, train, sd15, sdxl, clusters):
    siglip = SimpleNamespace(model_type="siglip2_vision_model")
    flux = SimpleNamespace(model=SimpleNamespace(model_config=SimpleNamespace(unet_config={"depth": 19})))
    wide = SimpleNamespace(model_type="dinov2", config={"hidden_size": 1024})
    for change, message in (
        ({"clip_vision": siglip}, f"{NODE} expected a DINOv2"),
        ({"clip_vision": wide}, f"{NODE} expected the DINOv2 of width 64"),
        ({"model": flux}, f"{NODE} expected a text-to-image model of SD 1.5 or SDXL"),
        ({"model": inside.tiny.tiny_instruct()}, f"{NODE} expected a text-to-image model"),
        ({"clip": None}, f"{NODE} expected the CLIP of SD 1.5"),
        ({"clip": sdxl[1]}, f"{NODE} expected the CLIP of the model, with clip_l, got one with clip_l and"),
    ):
        with pytest.raises(ValueError, match=message):
            train("none", **change)
    assert not file_of(inside, "none").parent.exists()


def test_pictures_that_cannot_be_used_are_named(inside, train, said):
    folder = inside.base / "input" / "mixed"
    folder.mkdir(exist_ok=True)
    for number in range(3):
        drawn(number).save(folder / f"{number}.png")
    Image.new("RGB", (64, 64), "red").save(folder / "plain.png")
    (folder / "torn.png").write_bytes(b"no picture")
    words, _ = train("mixed", folder="mixed")
    assert words.lora
    assert any("plain.png" in text and "torn.png" in text for text in said)
