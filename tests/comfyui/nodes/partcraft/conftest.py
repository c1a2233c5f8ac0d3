"""The golden words, text encoders and UNet in ComfyUI's own classes, and a tiny DINOv2."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.nodes.partcraft.shared import (
    comfy_clip,
    folder_of,
    golden_unet,
    nodes,
    published_words,
    words_of,
)
from tests.encoders.test_dino import tiny
from tests.golden import BUNDLED, Golden


@pytest.fixture(scope="module")
def bundled() -> Golden:
    """For tests of what is not compared with the published implementation."""
    return Golden(BUNDLED)


@pytest.fixture(scope="module")
def clip(inside, bundled):
    return comfy_clip(inside, bundled, "SD15")


@pytest.fixture(scope="module")
def xl_clip(inside, bundled):
    return comfy_clip(inside, bundled, "SDXL")


@pytest.fixture(scope="module")
def model(inside, bundled):
    return golden_unet(inside, bundled)


@pytest.fixture(scope="module")
def words(inside, bundled):
    """Of the published layout, with their LoRA."""
    name = published_words(inside, bundled)
    return nodes(inside, "loading").LoadPartCraft.execute(name).args[0]


@pytest.fixture(scope="module")
def reading(inside, bundled, clip, xl_clip):
    """CLIPs of SD 1.5 and SDXL that read the golden words."""
    read = nodes(inside, "text").with_words
    return SimpleNamespace(
        sd15=read(clip, words_of(inside, bundled, "mapper_l1"), "words"),
        sdxl=read(xl_clip, words_of(inside, bundled, "mapper_xl"), "words"),
    )


@pytest.fixture(scope="module")
def applied(inside, model, clip, words):
    """MODEL and CLIP of Apply PartCraft."""
    return nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 1.0).args


@pytest.fixture
def encode(inside):
    """What CLIP Text Encode makes of a text."""
    import nodes as comfyui

    def run(clip, text):
        with torch.inference_mode():
            return comfyui.CLIPTextEncode().encode(clip, text)[0]

    return run


@pytest.fixture(scope="module")
def dino(inside):
    """A DINOv2 of 64 numbers for pictures of 56 pixels, from a file, by our loader."""
    state = tiny(patch_size=4).state_dict()
    save_file({key: value.clone() for key, value in state.items()},
              folder_of(inside, "clip_vision") / "tiny_dino.safetensors")
    return nodes(inside, "dino").LoadDino.execute("tiny_dino.safetensors").args[0]
