"""The published tiny model as a folder of published layout, and as loaded from it."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from pit.parts2whole.files import Parts2Whole, load_parts2whole
from pit.parts2whole.unets import Denoiser
from tests.golden import Golden
from tests.parts2whole.cases import decoupled_states


def write_published(golden: Golden, folder: Path) -> Path:
    """The golden weights as the published folder holds them, in the type in which they are stored."""
    config = golden.facts("parts2whole_tiny_config")
    unet, guider, decoupled = decoupled_states(golden)
    states = {
        "unet": unet, "reference_unet": golden.below("parts2whole_tiny_state_ref", "reference_unet."),
        "pose_guider": guider,
    }
    for name, state in states.items():
        (folder / name).mkdir(parents=True)
        save_file(state, folder / name / "diffusion_pytorch_model.safetensors")
        settings = config["pose_guider" if name == "pose_guider" else "unet"]
        (folder / name / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(decoupled, folder / "decoupled_attn.pth")
    return folder


@pytest.fixture(scope="session")
def published_folder(golden, tmp_path_factory) -> Path:
    return write_published(golden, tmp_path_factory.mktemp("parts2whole") / "published")


@pytest.fixture(scope="session")
def published(published_folder) -> Parts2Whole:
    """The published model in float32."""
    model = load_parts2whole(published_folder)
    for module in (model.unet, model.reference_unet, model.pose_guider, model.decoupled):
        module.float()
    return model


@pytest.fixture(scope="session")
def denoiser(published) -> Denoiser:
    return Denoiser(published.unet, published.decoupled).eval()
