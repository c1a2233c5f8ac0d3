"""ComfyUI inside this process, and as a server with tiny models and a few files in its folders."""

import pytest
import torch

from dev.comfyui import make_base
from dev.server import ComfyServer
from tests.comfyui.nodes.inside import HERE, Inside
from tests.comfyui.nodes.published import write_ip_adapter, write_prior


@pytest.fixture(scope="session")
def inside(comfyui_folder, tmp_path_factory) -> Inside:
    return Inside(comfyui_folder, tmp_path_factory.mktemp("inside"))


@pytest.fixture(scope="session")
def lab(comfyui_folder, tmp_path_factory) -> ComfyServer:
    """A running ComfyUI with the pack and the nodes of `tiny`."""
    folder = tmp_path_factory.mktemp("lab")
    base = make_base(folder / "base")
    (base / "custom_nodes" / "tiny").symlink_to(HERE / "tiny", target_is_directory=True)
    write_ip_adapter(base / "models" / "ipadapter" / "tiny.safetensors")
    write_prior(base / "models" / "ip_prior" / "characters" / "prior.ckpt")
    with ComfyServer(comfyui_folder, base, folder / "server.log") as server:
        yield server


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
