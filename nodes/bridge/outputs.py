"""Whether what a node has written is still there, so that it runs again if not."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .folders import file_stamp


class Outputs:
    """Files and folders that nodes have written, with the stamps that they had then.

    ComfyUI runs a node again if its fingerprint has changed. A stamp alone will not do: it is another one
    after the first run than before it, and every node would run twice. So the fingerprint counts how often
    what a node left was found changed. Like ComfyUI's own cache this lasts as long as the server, and it
    holds stamps alone.
    """

    def __init__(self) -> None:
        self.left: dict[Path, list[tuple[str, object]]] = {}
        self.changes: Counter[Path] = Counter()

    def keep(self, path: Path) -> None:
        """Remember how a node has left a file or folder."""
        self.left[path] = stamps(path)

    def fingerprint(self, path: Path) -> int:
        """Changes if the file or folder is not as a node has left it."""
        if path in self.left and self.left[path] != stamps(path):
            del self.left[path]
            self.changes[path] += 1
        return self.changes[path]


def stamps(path: Path) -> list[tuple[str, object]]:
    """The files of a folder, or the one file, with their stamps."""
    return sorted((str(file), file_stamp(file)) for file in files_of(path))


def files_of(path: Path) -> Iterator[Path]:
    """A file itself, or all files in a folder, except hidden ones."""
    if not path.is_dir():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names if not name.startswith("."))
