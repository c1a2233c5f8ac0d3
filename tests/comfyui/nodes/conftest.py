"""ComfyUI inside this process, and as a server with tiny models and a few files in its folders."""

import pytest

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
