"""Folders of pictures that nodes offer, in ComfyUI's input folder and elsewhere."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import folder_paths

from ...pit.files.known import first_of
from ...pit.messages import quoted, shortened
from .folders import SHOWN, same_but_for_separators

NO_FOLDER = "no folder in input"
MADE_DATASETS = "ip_prior_datasets"  # in output, where Make Parts writes
# Levels of folders in input that are offered, and how many folders: the node's definition is built from them
# each time that the page asks for it, so that a deep or a wide tree must not be walked to its end.
DEEPEST, MOST_OFFERED = 3, 500

Folders = Iterable[tuple[str, Path]]
"""Folders by their names in a list, found one after another."""


def folders_in(places: Mapping[str, str], levels: int = 1) -> Iterator[tuple[str, Path]]:
    """The folders inside others, but for hidden ones, as `PLACE/PATH`; for a place without a name, as `PATH`.

    What is higher up comes first, so that a list that ends early has what people look for.
    """
    inside = [(place, Path(root)) for place, root in places.items()]
    for _ in range(levels):
        here, inside = inside, []
        for name, root in here:
            for folder in visible_folders(root):
                inside.append((f"{name}/{folder.name}" if name else folder.name, folder))
                yield inside[-1]


def visible_folders(root: Path) -> list[Path]:
    """The folders directly in another, sorted; none where it cannot be read."""
    try:
        return sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError:
        return []


def input_folders() -> Iterator[tuple[str, Path]]:
    """The folders inside ComfyUI's input folder, by their path in it."""
    return folders_in({"": folder_paths.get_input_directory()}, DEEPEST)


def offered_names(folders: Folders) -> list[str]:
    """What the list of a node shows: the first folders; if there is none, one entry says so."""
    return [name for name, _ in islice(folders, MOST_OFFERED)] or [NO_FOLDER]


def one_of_folders(choice: str, folders: Folders, expected: str, advice: str) -> Path:
    """The folder of this name, also of one that a list has no room for.

    Raises:
        FileNotFoundError: there is none, in a sentence that begins with what was `expected`.
    """
    # Looked up, not joined to a path: whatever a graph names, it cannot lead to another folder.
    known = dict(folders)
    here = same_but_for_separators(choice, known)
    if here is None:
        found = first_of(list(known), SHOWN) or "no folder"
        raise FileNotFoundError(shortened(
            f"{expected}, got {quoted(choice)}. Found there: {found}. {advice}"
        ))
    return known[here]


def input_folder(choice: str, node: str, advice: str) -> Path:
    """The folder of one of the choices. Raises FileNotFoundError, with advice, for anything else."""
    expected = f"{node} expected a folder inside ComfyUI's input folder"
    return one_of_folders(choice, input_folders(), expected, advice)


def why_no_folder(choice: str | None, find: Callable[[str], Path]) -> str | None:
    """Why `find` refuses a choice, if it does; None, which ComfyUI gives for a linked one, is not refused."""
    try:
        if choice is not None:
            find(choice)
    except FileNotFoundError as error:
        return str(error)
    return None
