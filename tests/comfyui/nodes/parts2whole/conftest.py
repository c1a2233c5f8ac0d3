"""The published tiny model, loaded by Load Parts2Whole."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.comfyui.nodes.parts2whole.shared import Sampler, nodes
from tests.parts2whole.cases import write_published


@pytest.fixture(scope="session")
def tiny_folder(inside, golden) -> Path:
    return write_published(golden, inside.base / "models" / "parts2whole" / "tiny")


@pytest.fixture(scope="session")
def loaded(inside, tiny_folder):
    """MODEL and PIT_PARTS2WHOLE."""
    with torch.inference_mode():
        return nodes(inside, "loading").LoadParts2Whole.execute(tiny_folder.name).args


@pytest.fixture(scope="session")
def model(loaded):
    return loaded[0]


@pytest.fixture(scope="session")
def parts(loaded):
    return loaded[1]


@pytest.fixture(scope="session")
def sampler(inside) -> Sampler:
    return Sampler(inside)


@pytest.fixture(scope="session")
def applied(inside, model, parts):
    """Makes the model that Apply Parts2Whole makes."""
    def make(references, pose=None, weight=1.0, start=0.0, end=1.0, base=None):
        execute = nodes(inside, "apply").ApplyParts2Whole.execute
        return execute(base or model, parts, references, weight, start, end, pose).args[0]

    return make


@pytest.fixture(scope="session")
def encoders(inside, parts):
    """CLIP, VAE and CLIP_VISION of the width of the golden model."""
    width = parts.image_attention.token_dim
    sizes = {"hidden_size": width, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 3}
    words = inside.comfy("sd1_clip")
    target = inside.comfy("supported_models_base").ClipTarget(words.SD1Tokenizer, words.SD1ClipModel)
    options = {"dtype": torch.float32, "clip_l_model_config": sizes}
    clip = inside.comfy("sd").CLIP(target, embedding_directory=None, parameters=0, model_options=options)
    vision = inside.comfy("clip_vision").ClipVisionModel(inside.tiny.CLIP_VISION | {"projection_dim": width})
    for number, module in enumerate((clip.cond_stage_model, vision.model)):
        for name, weight in module.named_parameters():
            if weight.ndim:
                generator = torch.Generator().manual_seed(number)
                noise = torch.randn(weight.shape, generator=generator)
                weight.data.copy_(noise / 5 + (weight.ndim == 1 and name.endswith("weight")))
    return clip, inside.tiny.tiny_vae(), vision
