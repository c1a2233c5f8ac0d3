"""Folders of pictures in ComfyUI's input folder, as nodes offer them."""
from __future__ import annotations

from pathlib import Path

import folder_paths

from ...pit.files.known import first_of
from ...pit.files.pictures import list_pictures
from ...pit.messages import quoted, shortened
from .folders import SHOWN, same_but_for_separators

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
    # Looked up, not joined to a path, so that no choice leads out of the input folder.
    folders = input_folders()
    here = same_but_for_separators(choice, folders)
    if here is None:
        raise FileNotFoundError(shortened(
            f"{node} expected a folder inside ComfyUI's input folder, got {quoted(choice)}. "
            f"Found there: {first_of(list(folders), SHOWN) or 'no folder'}. {advice}"
        ))
    return folders[here]


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
