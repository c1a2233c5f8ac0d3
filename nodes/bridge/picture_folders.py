"""Folders of pictures in ComfyUI's input folder, as nodes offer them."""
from __future__ import annotations

from pathlib import Path

import folder_paths

from ...pit.files.pictures import list_pictures
from .folders import one_of_folders

NO_FOLDER = "no folder in input"
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


def pictures_below(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures in a folder and in the folders directly in it, and what in them is left out."""
    places = [folder, *(
        each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")
    )]
    found, problems = [], []
    for place in places:
        paths, skipped = list_pictures(place)
        found += paths
        problems += [
            f"{each.path.relative_to(folder)}: {each.why}" for each in skipped if each.path not in places
        ]
    return found, problems
