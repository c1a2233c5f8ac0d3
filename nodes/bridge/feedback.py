"""What a node reports while it works: progress, previews and text; and the check for Cancel."""
from __future__ import annotations

from collections.abc import Callable, Mapping

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer


def as_lines(facts: Mapping[str, object]) -> str:
    """Facts, one per line."""
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def say(node: type[io.ComfyNode], text: str) -> None:
    """Show text in a node, whose schema must ask for the hidden `unique_id`."""
    # Only ComfyUI's executor fills in the hidden values; without it there is no page to show the text on.
    if node.hidden and node.hidden.unique_id:
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


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
