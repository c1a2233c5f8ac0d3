"""What nodes make, kept as files that loaders offer."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from comfy_api.latest import io

from .feedback import told
from .folders import ModelFiles, own_file


def kept(
    node: type[io.ComfyNode], files: ModelFiles, name: str, save: Callable[[Path], None], what: str = ""
) -> io.NodeOutput:
    """Save under a name that a user gives, and tell so in the node.

    Args:
        save: writes the file.
        what: what is in it, for the text.
    Raises:
        ValueError: the name leads elsewhere.
        WeightFileError: the file cannot be written.
    """
    # Into the first folder that the loader lists, so that the new file is found there.
    path = own_file(files.folder_to_write(), name)
    save(path)
    return io.NodeOutput(ui=told(node, ", ".join(filter(None, (f"written: {path.name}", what)))))
