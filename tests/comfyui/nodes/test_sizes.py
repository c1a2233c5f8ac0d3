"""Latents in the size of the model, one for each concept, and a warning for creatures of another size."""

import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tests.comfyui.nodes.graphs import node


@pytest.fixture
def said(inside, monkeypatch):
    """What nodes are told to show, as (node, text), while the node "7" runs."""
    texts = []
    page = SimpleNamespace(send_progress_text=lambda text, node: texts.append((node, text)))
    feedback = inside.pack("nodes.bridge.feedback")
    monkeypatch.setattr(feedback, "PromptServer", SimpleNamespace(instance=page))
    monkeypatch.setattr(feedback, "get_executing_context", lambda: SimpleNamespace(node_id="7"))
    return texts


def sampled(inside, model, conditioning, side):
    latent = torch.zeros(1, 12, side, side)
    return inside.comfy("sample").sample(
        model, latent, 1, 1.0, "euler", "normal", conditioning, conditioning, latent, disable_pbar=True,
        seed=0,
    )


@pytest.fixture
def words(shipped):
    with torch.inference_mode():
        return shipped[1].encode_from_tokens_scheduled(shipped[1].tokenize("a creature"))


def empty(inside, model, concepts, images=1, percent=100):
    return inside.nodes("latent").EmptyLatent.execute(model, inside.tokens(concepts), images, percent).args[0]


def shape(*given, **settings):
    return empty(*given, **settings)["samples"].shape


def test_creatures_of_another_size_are_told_in_the_node_that_samples(inside, shipped, words, said):
    with torch.inference_mode():
        sampled(inside, shipped[0], words, 16)
        assert said == []
        sampled(inside, shipped[0].clone(), words, 24)
    ((place, text),) = said
    assert place == "7" and "256 x 256 pixels; at 384 x 384 they draw a mosaic" in text


def test_the_base_like_sd15_tells_other_sizes_as_well(inside, creature_sd15, said):
    model, clip, _ = creature_sd15
    with torch.inference_mode():
        words = clip.encode_from_tokens_scheduled(clip.tokenize("a red ball"))
        sampled(inside, model, words, 16)
        assert said == []
        sampled(inside, model, words, 8)
    assert len(said) == 1 and "at 128 x 128" in said[0][1]


def test_the_size_of_character_sheets_is_known_where_a_lora_is(inside, shipped, words, said):
    with_lora = shipped[0].clone()
    key = next(key for key in with_lora.model_state_dict() if key.endswith("attn1.to_q.weight"))
    change = torch.zeros_like(with_lora.model_state_dict()[key])
    with_lora.add_patches({key: ("diff", (change,))}, 1.0)
    with torch.inference_mode():
        sampled(inside, with_lora, words, 32)
        assert said == []
        sampled(inside, shipped[0], words, 32)
    assert len(said) == 1


def test_latents_follow_the_concepts_and_the_model(inside, shipped, creature_sd15, caplog):
    assert shape(inside, shipped[0], 5) == (5, 12, 16, 16)
    assert shape(inside, shipped[0], 2, images=3) == (6, 12, 16, 16)
    assert shape(inside, shipped[0], 1, percent=200) == (1, 12, 32, 32)
    assert shape(inside, creature_sd15[0], 3) == (3, 12, 16, 16)
    assert shape(inside, inside.tiny.tiny_sdxl(), 4) == (4, 4, 128, 128)
    assert shape(inside, inside.tiny.tiny_sdxl(), 1, percent=75) == (1, 4, 96, 96)
    assert "doesn't exist" not in caplog.text  # as ComfyUI says of models that lack a size of their own


def test_ksampler_leaves_our_latents_and_resizes_those_of_comfyui(inside, shipped, creature_sd15):
    import nodes as comfyui

    stock = comfyui.EmptyLatentImage().generate(256, 512, 2)[0]
    for model in (shipped[0], creature_sd15[0]):
        for latent, sides in ((empty(inside, model, 2), (16, 16)), (stock, (32, 16))):
            fixed = inside.comfy("sample").fix_empty_latent_channels(
                model, latent["samples"], latent["downscale_ratio_spacial"])
            assert fixed.shape == (2, 12, *sides)


@pytest.mark.parametrize("loader", ["PiT_LoadCreatureModels", "PiT_LoadCreatureSD15"])
def test_a_graph_of_stock_nodes_draws_in_the_size_that_was_asked_for(lab, loader):
    graph = {
        "models": node(loader),
        "words": node("CLIPTextEncode", clip=["models", 1], text="a creature"),
        "latent": node("EmptyLatentImage", width=256, height=256, batch_size=2),
        "sampler": node(
            "KSampler", model=["models", 0], positive=["words", 0], negative=["words", 0],
            latent_image=["latent", 0], seed=0, steps=2, cfg=2.0, sampler_name="euler_ancestral",
            scheduler="normal", denoise=1.0,
        ),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["models", 2]),
        "save": node("SaveImage", images=["decoded", 0], filename_prefix=loader),
    }
    result = lab.queue(graph)
    assert result.status == "success", result.error
    drawn = [Image.open(io.BytesIO(lab.view(image))) for image in result.outputs["save"]["images"]]
    assert [picture.size for picture in drawn] == [(256, 256)] * 2


def test_latents_that_fill_the_memory_are_refused(inside):
    """A file of a megabyte has room for 60,000 concepts of width 1."""
    latent, tokens = inside.nodes("latent").EmptyLatent, inside.tokens(60_000, width=1)
    with pytest.raises(ValueError, match="at most 1525 pictures of 128x128 latent pixels at once, got 60000"):
        latent.execute(inside.tiny.tiny_sdxl(), tokens, 1, 100)
    with pytest.raises(ValueError, match="at most 95 pictures of 512x512 latent pixels at once, got 128"):
        latent.execute(inside.tiny.tiny_sdxl(), inside.tokens(2), 64, 400)


@pytest.mark.parametrize(("kind", "size"), [
    ("SDXL", 1024), ("SSD1B", 1024), ("SDXLRefiner", 1024), ("SD15", 512), ("SD20", 768),
    ("SD21UnclipL", 768),
])
def test_every_kind_of_stable_diffusion_has_its_size(inside, kind, size):
    config = getattr(inside.comfy("supported_models"), kind)
    model = SimpleNamespace(model=SimpleNamespace(model_config=config(config.unet_config)))
    assert inside.nodes("latent").native_size(model) == size


def test_a_model_of_another_kind_is_sent_to_its_own_latent(inside):
    config = inside.comfy("supported_models").SD3
    model = SimpleNamespace(model=SimpleNamespace(model_config=config(config.unet_config)))
    with pytest.raises(ValueError, match="SDXL's kind, got SimpleNamespace. Use the empty latent"):
        inside.nodes("latent").native_size(model)
