"""The miniature text encoders: context and pooled vector, and their weights under ComfyUI's names."""

import re

import pytest
import torch

from pit.demo.models.sizes import TEXT_G, TEXT_L, TEXT_LENGTH
from pit.demo.models.text import ENCODERS, TextEncoders, comfyui_key

CAPTIONS = ["a creature", "a green round creature with red ram horns and blue bat wings in the sky"]
LAYER = r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12]|layer_norm[12])\.(weight|bias)"
EMBEDDINGS = r"embeddings\.(token_embedding|position_embedding)\.weight"
COMFYUI_KEY = re.compile(
    rf"clip_[lg]\.transformer\.text_model\.({EMBEDDINGS}|{LAYER}|final_layer_norm\.(weight|bias))"
    r"|clip_g\.transformer\.text_projection\.weight"
)


def encoders(seed):
    torch.manual_seed(seed)
    return TextEncoders().eval()


@torch.no_grad()
def test_captions_become_a_context_and_a_pooled_vector():
    context, pooled = encoders(0)(CAPTIONS)
    assert context.shape == (2, TEXT_LENGTH, TEXT_L["hidden_size"] + TEXT_G["hidden_size"])
    assert pooled.shape == (2, TEXT_G["hidden_size"])
    assert not torch.allclose(pooled[0], pooled[1])


@torch.no_grad()
def test_saved_weights_read_captions_the_same():
    source, target = encoders(0), encoders(1)
    expected = source(CAPTIONS)
    assert not torch.allclose(target(CAPTIONS)[1], expected[1])
    target.load_comfyui_state(source.comfyui_state() | {"unet.conv_in.weight": torch.zeros(1)})
    assert all(map(torch.equal, target(CAPTIONS), expected))


def test_every_weight_has_the_name_that_comfyui_expects():
    state = encoders(0).comfyui_state()
    assert [key for key in state if not COMFYUI_KEY.fullmatch(key)] == []
    parameters = sum(len(list(getattr(encoders(0), name).parameters())) for name in ENCODERS)
    assert len(state) == parameters


@pytest.mark.parametrize(("key", "expected"), [
    ("embeddings.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("text_model.final_layer_norm.bias", "text_model.final_layer_norm.bias"),
    ("text_projection.weight", "text_projection.weight"),
])
def test_keys_of_either_version_of_transformers_become_those_of_comfyui(key, expected):
    assert comfyui_key(key) == expected


@pytest.mark.parametrize("name", ENCODERS)
def test_a_missing_weight_is_named(name):
    state = encoders(0).comfyui_state()
    key = f"{name}.transformer.text_model.final_layer_norm.weight"
    del state[key]
    with pytest.raises(KeyError, match=re.escape(key)):
        encoders(1).load_comfyui_state(state)
