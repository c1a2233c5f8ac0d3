"""What a system brings along: its kinds of files, those of them that are published, and its commands.

Each system tells this in one record, a `System` in its own `published.py`; `pit.systems` lists them all.
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
    """A file, or with a trailing slash in `path` and `target` a whole folder, on the Hugging Face hub.

    `name` is what a user types after `python -m pit download`, `target` the place below ComfyUI's `models`,
    `license` what is known of it without asking the hub.
    """

    name: str
    repo: str
    path: str
    target: str
    license: str

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")


@dataclass(frozen=True)
class Lookalike:
    """Another project's file that people take for one of ours: what it is, and what to do about it."""

    is_one: Recognizer
    what: str
    advice: str


@dataclass(frozen=True)
class FileKind:
    """One kind of file: all that loaders, errors and downloads need to know of it.

    Attributes:
        name: what code calls it, such as "ip_prior".
        what: what people call it, with its article.
        folder: where it lies below ComfyUI's `models`.
        loader: display name of the node that loads it.
        writer: display name of the node that writes it, if there is one.
        is_one: tells by names and shapes of tensors whether a file is of this kind.
        lookalikes: of other projects, looked for first.
        published: those that `python -m pit download` fetches.
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
        """A sentence: where such a file goes."""
        return f"It goes into models/{self.folder}, for {self.loader}."

    @property
    def where_to_get(self) -> str:
        """A sentence: which published file, where it goes, the command that fetches it; or what writes it.

        Raises:
            ValueError: it is neither published nor written by a node.
        """
        names = tuple(dict.fromkeys(file.name for file in self.published))
        if not names and not self.writer:
            raise ValueError(f"Nothing is known of where to get files of the kind {self.name!r}.")
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
    """What a system brings along.

    Attributes:
        commands: by the name that a user types.
        shipped: files that come with the pack, by the name of their kind and the name that loaders offer.
    """

    kinds: tuple[FileKind, ...] = ()
    commands: Mapping[str, Command] = field(default_factory=dict)
    shipped: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)


# Filled by `pit.systems` as soon as anything of `pit` is imported: what lies below the systems must be able
# to say what a file is without knowing of them.
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
    """The files of a kind that come with the pack, by the name that loaders offer."""
    return _SHIPPED.get(kind, {})


def published_files() -> list[PublishedFile]:
    """The published files of all kinds."""
    return [file for kind in file_kinds() for file in kind.published]


def has_key(pattern: str) -> Recognizer:
    """Tells files by the name of any of their tensors."""
    compiled = re.compile(pattern)
    return lambda state: any(map(compiled.search, state))
