"""What a node reports while it works: progress, previews and text; and the check for Cancel."""
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from uuid import uuid4

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ...pit.files.pictures import save_picture
from ...pit.messages import LONGEST, shortened

TOLD_AT = (1, 2, 4, 8, 16, 32, 64)  # pictures that a page is told of
LONGEST_LINE, MOST_LINES = 300, 40


def as_lines(facts: Mapping[str, object]) -> str:
    """Facts, one per line, as far as a message has room: a file may bring any number, of any length."""
    lines = (shortened(f"{name}: {value}", LONGEST_LINE) for name, value in facts.items())
    text = "\n".join(islice(lines, MOST_LINES))
    return text if len(text) <= LONGEST else f"{text[:LONGEST - 4]}\n..."


def say(node: type[io.ComfyNode], text: str) -> None:
    """Show text in a node, whose schema must ask for the hidden `unique_id`."""
    # Only ComfyUI's executor fills in the hidden values; without it there is no page to show the text on.
    if node.hidden and node.hidden.unique_id:
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


def say_and_log(node: type[io.ComfyNode], text: str) -> None:
    """Show text in a node, and write it into the log, where scripts have nothing else to look at."""
    logging.info(text)
    say(node, text)


def say_where_it_runs(text: str) -> None:
    """Show text in the node that is running now, whichever pack it is of."""
    context = get_executing_context()
    if context is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)


def told(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Text as the output of a node, shown in the node as well."""
    # The page does not draw text outputs of custom nodes by itself: only `say` makes this one visible.
    say(node, text)
    return ui.PreviewText(text)


def progress_bar() -> Callable[..., None]:
    """A function of (steps done, steps in total) that moves the progress bar and raises once canceled.

    It also takes a picture, which is shown in the node as a preview.
    """
    bar = comfy.utils.ProgressBar(1)

    def done(step: int, total: int, picture: Image.Image | None = None) -> None:
        # ComfyUI's bar checks for Cancel as well, but only when it sends, and it throttles what it sends.
        # Asking at every step is what makes Cancel work within one step.
        comfy.model_management.throw_exception_if_processing_interrupted()
        # ComfyUI encodes the picture later and in another thread, and JPEG only takes RGB. `convert` gives
        # it a copy that nobody changes in the meantime.
        preview = None if picture is None else ("JPEG", picture.convert("RGB"), None)
        bar.update_absolute(step, total, preview)

    return done


class LastPicture:
    """The newest picture of a node that is still running, for a page that has lost the previews.

    The page drops all previews when another workflow is opened in it, but keeps the outputs of the nodes for
    each workflow, and shows them where there is no preview. So the picture is sent as an output as well.
    """

    def __init__(self) -> None:
        # One file for the whole run, which the page reads again whenever it shows it.
        self.path = Path(folder_paths.get_temp_directory(), f"piece_it_together_{uuid4().hex}.png")
        self.page: object = None
        self.shown = 0

    def show(self, picture: Image.Image) -> None:
        """Keep this picture, and tell the page where it is."""
        context, server = get_executing_context(), PromptServer.instance
        page = server.sockets.get(server.client_id) if context is not None else None
        if page is None:
            return  # nobody looks
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(self.path, picture)
        if page is not self.page:
            self.page, self.shown = page, 0
        self.shown += 1
        # Repeatedly, since a page that is still being loaded, which may take long, forgets what it is told
        # with the graph it had before; and not each time, since every output becomes a picture of its own in
        # the app mode.
        if self.shown in TOLD_AT:
            where = {"filename": self.path.name, "subfolder": "", "type": "temp"}
            message = {"node": context.node_id, "display_node": context.node_id,
                       "prompt_id": context.prompt_id, "output": {"images": [where]}}
            server.send_sync("executed", message, server.client_id)
