"""A real ComfyUI with the pack in it, and its page in a real browser."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.browser import ARGUMENTS, NAMES, find_chromium, open_page
from dev.comfyui import DOWNLOADED, GIVEN, PACK_NAME, ensure_comfyui, make_base
from dev.server import ComfyServer
from tests.comfyui.nodes.published import write_ip_adapter, write_optimizer, write_prior
from tests.comfyui.pages import clear
from tests.waiting import STUCK_SECONDS

TINY = Path(__file__).parent / "nodes" / "tiny"


def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, mark in (("comfyui_folder", "comfyui"), ("chromium", "browser")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def comfyui_folder() -> Path:
    """Where ComfyUI's main.py lies."""
    if GIVEN not in os.environ and not DOWNLOADED.is_dir():
        pytest.fail("These tests need a real ComfyUI: run them with 'python3 dev.py test'.", pytrace=False)
    return ensure_comfyui()


@pytest.fixture(scope="session")
def comfyui(comfyui_folder, tmp_path_factory) -> ComfyServer:
    """A running ComfyUI for the whole session, in a base directory of its own, with the nodes of `tiny`."""
    folder = tmp_path_factory.mktemp("comfyui")
    with ComfyServer(comfyui_folder, make_base(with_tiny(folder)), folder / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def pack_nodes(comfyui) -> dict[str, dict]:
    """The definitions of the nodes that come from this pack, by id."""
    module = f"custom_nodes.{PACK_NAME}"
    return {key: node for key, node in comfyui.object_info().items() if node["python_module"] == module}


@pytest.fixture(scope="session")
def bare_comfyui(comfyui_folder, tmp_path_factory) -> ComfyServer:
    """Another one without the pack. A test may end it: only its log is for sharing."""
    folder = tmp_path_factory.mktemp("bare")
    with ComfyServer(comfyui_folder, with_tiny(folder), folder / "server.log") as server:
        yield server


def with_tiny(folder: Path) -> Path:
    """A base directory with the nodes of `tiny`, and with tiny models for ours."""
    base = folder / "base"
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "tiny").symlink_to(TINY, target_is_directory=True)
    write_ip_adapter(base / "models" / "ipadapter" / "tiny.safetensors")
    write_prior(base / "models" / "ip_prior" / "characters" / "prior.ckpt")
    write_optimizer(base / "models" / "object_insertion" / "tiny.pt")
    return base


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; without one on the machine, its tests are skipped and say so."""
    path = find_chromium()
    if path is None:
        pytest.skip(f"no browser found, looked for {', '.join(NAMES)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@contextmanager
def new_page(chromium, server: ComfyServer, **settings):
    """ComfyUI's page, loaded, with the default graph in it; settings as `open_page` takes them."""
    with chromium.new_context(viewport={"width": 1600, "height": 900}) as context:
        context.set_default_timeout(1000 * STUCK_SECONDS)
        yield open_page(context, server, **settings)


@pytest.fixture(scope="session")
def shared_page(chromium, comfyui):
    with new_page(chromium, comfyui) as page:
        yield page


@pytest.fixture
def page(shared_page):
    """ComfyUI's page, with the nodes of the pack registered and an empty graph in it."""
    clear(shared_page)
    return shared_page


@pytest.fixture
def fresh_page(chromium, comfyui):
    """The same, loaded for this test alone, which may open panels and dialogs in it."""
    with new_page(chromium, comfyui) as page:
        yield page
    comfyui.interrupt()  # a test that failed may have left a graph running that never ends
