"""Folders of pictures in ComfyUI's input folder, as nodes offer them."""
from __future__ import annotations

from pathlib import Path

import folder_paths

from .folders import one_of_folders

NO_FOLDER = "no folder in input"
MADE_DATASETS = "ip_prior_datasets"  # in output, where Make Parts writes
# Levels of folders in input that are offered: the node's definition is built from them each time that the
# page asks for it, so a deep tree must not be walked to its end.
DEEPEST = 3


def input_folders() -> dict[str, Path]:
    """The folders inside ComfyUI's input folder, by their path in it."""
    root = Path(folder_paths.get_input_directory())
    found = {}
    for depth in range(1, DEEPEST + 1):
        for folder in sorted(root.glob("/".join("*" * depth))):
            name = folder.relative_to(root).as_posix()
            if folder.is_dir() and not any(part.startswith(".") for part in Path(name).parts):
                found[name] = folder
    return found


def input_folder(choice: str, node: str, advice: str) -> Path:
    """The folder of one of the choices. Raises FileNotFoundError, with advice, for anything else."""
    expected = f"{node} expected a folder inside ComfyUI's input folder"
    return one_of_folders(choice, input_folders(), expected, advice)
