"""A real ComfyUI with the pack in it, and its page in a real browser."""

import os
from pathlib import Path

import pytest

from dev.browser import ARGUMENTS, NAMES, find_chromium, open_page
from dev.comfyui import DOWNLOADED, GIVEN, ensure_comfyui, make_base
from dev.server import ComfyServer


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
    """A running ComfyUI for the whole session, in a base directory of its own."""
    folder = tmp_path_factory.mktemp("comfyui")
    with ComfyServer(comfyui_folder, make_base(folder / "base"), folder / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def bare_comfyui(comfyui_folder, tmp_path_factory) -> ComfyServer:
    """Another one without the pack. A test may end it: only its log is for sharing."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "base" / "custom_nodes").mkdir(parents=True)
    with ComfyServer(comfyui_folder, folder / "base", folder / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; without one on the machine, its tests are skipped and say so."""
    path = find_chromium()
    if path is None:
        pytest.skip(f"no browser found, looked for {', '.join(NAMES)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@pytest.fixture
def page(chromium, comfyui):
    """ComfyUI's page, loaded, with the nodes of the pack registered and the default graph in it."""
    with chromium.new_context(viewport={"width": 1600, "height": 900}) as context:
        yield open_page(context, comfyui)
