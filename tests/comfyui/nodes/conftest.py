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
    """MODEL, CLIP, VAE, CLIP_VISION, PIT_IP_ADAPTER, PIT_PRIOR, and a base PIT_IP_ADAPTER."""
    with torch.inference_mode():
        return inside.pack("nodes.creatures.loading").LoadCreatureModels.execute().args


@pytest.fixture(scope="session")
def creature_sd15(inside):
    """MODEL, CLIP, VAE."""
    with torch.inference_mode():
        return inside.pack("nodes.creatures.loading").LoadCreatureSD15.execute().args


@pytest.fixture
def cancel_at(inside, monkeypatch):
    """Presses Cancel when the progress bar moves for the `count`-th time."""
    management, utils = inside.comfy("model_management"), inside.comfy("utils")
    # ComfyUI leaves out what comes quickly after another: which moves are seen would be up to the clock.
    monkeypatch.setattr(utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    monkeypatch.setattr(utils, "PROGRESS_THROTTLE_MIN_PERCENT", 0)
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


@pytest.fixture(scope="module")
def tiny_model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def tiny_adapter(inside):
    return inside.ip_adapter()


@pytest.fixture
def patched(inside, tiny_model, tiny_adapter):
    """Makes the model with tokens."""
    return lambda concepts=1, **settings: inside.apply(
        tiny_model, tiny_adapter, inside.tokens(concepts), **settings)


@pytest.fixture(scope="module")
def prompts(inside):
    return inside.tiny.conditioning(2), inside.tiny.conditioning(3)


@pytest.fixture
def cfg(inside, prompts):
    """Makes a plain guider."""
    def make(model, positive=None, negative=None, scale=5.0):
        guider = inside.comfy("samplers").CFGGuider(model)
        guider.set_conds(positive or prompts[0], negative or prompts[1])
        guider.set_cfg(scale)
        return guider

    return make


@pytest.fixture
def draw(inside):
    """What a guider samples from seeded noise `[images, 4, 8, 8]`."""
    def run(guider, images=1, steps=2, noise=None):
        samplers = inside.comfy("samplers")
        sigmas = samplers.calculate_sigmas(
            guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
        if noise is None:
            noise = torch.randn(images, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            return guider.sample(noise, torch.zeros_like(noise), samplers.sampler_object("euler"), sigmas,
                                 disable_pbar=True, seed=1)

    return run
