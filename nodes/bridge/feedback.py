"""What a node tells while it works: progress, previews, text. And Cancel."""
from __future__ import annotations

from collections.abc import Callable, Mapping

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer


def as_lines(facts: Mapping[str, object]) -> str:
    """Facts one below the other."""
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def say(node: type[io.ComfyNode], text: str) -> None:
    """Show text in a node, whose schema must ask for its hidden id."""
    if node.hidden and node.hidden.unique_id:
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


def told(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Text as the output of a node, and shown in it: the page by itself shows no such output."""
    say(node, text)
    return ui.PreviewText(text)


def progress_bar() -> Callable[..., None]:
    """A function of (steps done, steps in all) that moves the progress bar, and raises once cancelled.

    It takes a picture as well, which is shown in the node.
    """
    bar = comfy.utils.ProgressBar(1)

    def done(step: int, total: int, picture: Image.Image | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        # ComfyUI encodes it later, in another thread, and only RGB.
        preview = None if picture is None else ("JPEG", picture.convert("RGB"), None)
        bar.update_absolute(step, total, preview)

    return done
