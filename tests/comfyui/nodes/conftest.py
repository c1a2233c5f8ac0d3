"""ComfyUI inside this process, and as a server with tiny models."""

import pytest
import torch

from dev.server import ComfyServer
from tests.comfyui.nodes.inside import Inside


@pytest.fixture(scope="session")
def inside(comfyui_folder, tmp_path_factory) -> Inside:
    return Inside(comfyui_folder, tmp_path_factory.mktemp("inside"))


@pytest.fixture
def lab(comfyui) -> ComfyServer:
    """The running ComfyUI, where it has the nodes of `tiny`."""
    return comfyui


@pytest.fixture(scope="session")
def shipped(inside):
    """MODEL, CLIP, VAE, CLIP_VISION, PIT_IP_ADAPTER, PIT_PRIOR."""
    with torch.inference_mode():
        return inside.pack("nodes.creatures.models").LoadCreatureModels.execute().args


@pytest.fixture
def cancel_at(inside):
    """Presses Cancel when the progress bar moves for the `count`-th time."""
    management, utils = inside.comfy("model_management"), inside.comfy("utils")
    seen = []

    def arm(count):
        def hook(value, total, preview, **_):
            seen.append((value, total, preview))
            if len(seen) == count:
                management.interrupt_current_processing()

        utils.set_progress_bar_global_hook(hook)
        return seen

    yield arm
    utils.set_progress_bar_global_hook(None)
    management.interrupt_current_processing(False)
