"""What a system contributes: its kinds of files, which of them are published, and its commands.

Each system states this in one record, a `System` in its own `published.py`; `pit.systems` lists them all.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Recognizer = Callable[[Mapping[str, "Tensor"]], bool]


@dataclass(frozen=True)
class PublishedFile:
    """A file on the Hugging Face hub; with a trailing slash in `path` and `target`, a whole folder.

    `name` is what a user types after `python -m pit download`, `target` the place below ComfyUI's `models`,
    `license` what is known without asking the hub.
    """

    name: str
    repo: str
    path: str
    target: str
    license: str

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder, whose files are listed when they are downloaded."""
        return self.path.endswith("/")


@dataclass(frozen=True)
class Lookalike:
    """Another project's file that people mistake for one of ours: what it is, and what to do about it."""

    is_one: Recognizer
    what: str
    advice: str


@dataclass(frozen=True)
class FileKind:
    """One kind of file: everything that loaders, errors and downloads need to know about it.

    Attributes:
        name: what code calls it, such as "ip_prior".
        what: what people call it, with its article.
        folder: where it belongs below ComfyUI's `models`.
        loader: display name of the node that loads it.
        writer: display name of the node that writes it, if there is one.
        is_one: tells by the names and shapes of its tensors whether a file is of this kind.
        lookalikes: files of other projects, checked first.
        published: the files that `python -m pit download` fetches.
    """

    name: str
    what: str
    folder: str
    loader: str
    writer: str = ""
    is_one: Recognizer = lambda state: False
    lookalikes: tuple[Lookalike, ...] = ()
    published: tuple[PublishedFile, ...] = ()

    @property
    def place(self) -> str:
        """A sentence that says where such a file belongs."""
        return f"It goes into models/{self.folder}, for {self.loader}."

    @property
    def where_to_get(self) -> str:
        """A sentence that says which published file to get, where to put it and how, or what writes it.

        Raises:
            ValueError: it is neither published nor written by a node.
        """
        # Files of one name belong together (weights and their configuration); further names are alternatives.
        names = tuple(dict.fromkeys(file.name for file in self.published))
        if not names and not self.writer:
            raise ValueError(
                f"Expected published files or a writer for the kind {self.name!r}, got neither. Add one to "
                "its record."
            )
        if not names:
            return f"{self.writer} writes such files."
        files = [file for file in self.published if file.name == names[0]]
        places = " and ".join(f"{file.path} to ComfyUI/models/{file.target}" for file in files)
        others = f" (also published: {', '.join(names[1:])})" if names[1:] else ""
        return (
            f"Copy {places} from the Hugging Face repository {files[0].repo}, or run "
            f"`python -m pit download {names[0]} --models ComfyUI/models` in the folder of this pack{others}."
        )


@dataclass(frozen=True)
class Command:
    """A command of `python -m pit`: the module with its `add_arguments` and `run`, and what it does."""

    module: str
    summary: str


@dataclass(frozen=True)
class System:
    """What a system contributes.

    Attributes:
        commands: by the name that a user types.
        shipped: files that come with the pack, by the name of their kind, then by the name that loaders show.
    """

    kinds: tuple[FileKind, ...] = ()
    commands: Mapping[str, Command] = field(default_factory=dict)
    shipped: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)


# Filled by `pit.systems` as soon as anything in `pit` is imported: the layers below the systems must be able
# to say what a file is, but may not import the systems.
_KINDS: dict[str, FileKind] = {}
_SHIPPED: dict[str, dict[str, Path]] = {}


def register(system: System) -> None:
    """Make the files of a system known."""
    _KINDS.update({kind.name: kind for kind in system.kinds})
    for kind, files in system.shipped.items():
        _SHIPPED.setdefault(kind, {}).update(files)


def file_kinds() -> Iterator[FileKind]:
    """All kinds of files, in the order of the systems."""
    return iter(_KINDS.values())


def file_kind(name: str) -> FileKind:
    """The kind of this name. Raises KeyError if there is none."""
    return _KINDS[name]


def shipped_files(kind: str) -> Mapping[str, Path]:
    """The files of a kind that come with the pack, by the name that loaders show."""
    return _SHIPPED.get(kind, {})


def published_files() -> list[PublishedFile]:
    """The published files of all kinds."""
    return [file for kind in file_kinds() for file in kind.published]


def has_key(pattern: str) -> Recognizer:
    """A recognizer of files in which the name of any tensor matches `pattern`."""
    compiled = re.compile(pattern)
    return lambda state: any(map(compiled.search, state))
