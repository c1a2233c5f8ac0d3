"""Chromium or Chrome, where the machine has one, and ComfyUI's page in it."""

from __future__ import annotations

import shutil

from dev.client import ComfyClient

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--no-first-run",
]
PAGE_IS_READY = """() =>
    window.app?.extensionManager?.workflow?.activeWorkflow && window.app.graph?.nodes?.length > 0
    && Object.keys(window.LiteGraph.registered_node_types).some(name => name.startsWith("PiT_"))
    && !document.querySelector("#splash-loader, .p-blockui-mask")
"""


def find_chromium() -> str | None:
    """The path of the first browser that is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def open_page(context, client: ComfyClient, **settings):
    """ComfyUI's page in a new tab of Playwright's browser or context, loaded, with the default graph in it.

    settings: ComfyUI's own, with their dots written as two underscores, as in Comfy__Minimap__Visible=False.
    """
    named = {name.replace("__", "."): value for name, value in settings.items()}
    # A first visit would open the templates over the graph.
    client.post("/settings", {"Comfy.TutorialCompleted": True, **named})
    page = context.new_page()
    page.goto(client.address)
    page.wait_for_function(PAGE_IS_READY, timeout=240_000)
    return page
