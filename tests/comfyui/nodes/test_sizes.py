"""Latents in the size of the model, one for each concept, and a warning for creatures of another size."""

from types import SimpleNamespace

import pytest
import torch


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
    latent = torch.zeros(1, 4, side, side)
    return inside.comfy("sample").sample(
        model, latent, 1, 1.0, "euler", "normal", conditioning, conditioning, latent, disable_pbar=True,
        seed=0,
    )


@pytest.fixture
def words(shipped):
    with torch.inference_mode():
        return shipped[1].encode_from_tokens_scheduled(shipped[1].tokenize("a creature"))


def empty(inside, model, concepts, images=1, percent=100):
    node = inside.nodes("latent").EmptyLatent
    return node.execute(model, inside.tokens(concepts), images, percent).args[0]["samples"].shape


def test_creatures_of_another_size_are_told_in_the_node_that_samples(inside, shipped, words, said):
    with torch.inference_mode():
        sampled(inside, shipped[0], words, 16)
        assert said == []
        sampled(inside, shipped[0].clone(), words, 64)
    ((node, text),) = said
    assert node == "7" and "at 512 x 512 they draw a mosaic" in text


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


def test_latents_follow_the_concepts_and_the_model(inside, shipped):
    assert empty(inside, shipped[0], 5) == (5, 4, 16, 16)
    assert empty(inside, shipped[0], 2, images=3) == (6, 4, 16, 16)
    assert empty(inside, shipped[0], 1, percent=200) == (1, 4, 32, 32)
    assert empty(inside, inside.tiny.tiny_sdxl(), 4) == (4, 4, 128, 128)
    assert empty(inside, inside.tiny.tiny_sdxl(), 1, percent=75) == (1, 4, 96, 96)


def test_latents_that_fill_the_memory_are_refused(inside):
    """A file of a megabyte has room for 60,000 concepts of width 1."""
    node, tokens = inside.nodes("latent").EmptyLatent, inside.tokens(60_000, width=1)
    with pytest.raises(ValueError, match="at most 1525 pictures of 128x128 latent pixels at once, got 60000"):
        node.execute(inside.tiny.tiny_sdxl(), tokens, 1, 100)
    with pytest.raises(ValueError, match="at most 95 pictures of 512x512 latent pixels at once, got 128"):
        node.execute(inside.tiny.tiny_sdxl(), inside.tokens(2), 64, 400)


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
