"""How ComfyUI's page shows our errors: under a heading in words, and with their sentence before any path.

The page heads an error with the full name of its type, and shows the message below. For types of ours, that
name would begin with the path of the pack on disk.
"""
from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import comfy.model_management
import folder_paths
from comfy_api.latest import io

from ...pit.files.pictures import PictureError
from ...pit.files.published import file_kinds
from ...pit.files.weights import WeightFileError
from ...pit.messages import LONGEST, shortened
from .kinds import check_kinds, wanted_kinds

OURS = tuple(Path(__file__).parents[2] / part for part in ("nodes", "pit"))


def headed(heading: str) -> Callable[[type[Exception]], type[Exception]]:
    """Makes this the name of an error's type in ComfyUI's page, which only leaves out the module builtins."""
    def named(kind: type[Exception]) -> type[Exception]:
        kind.__module__, kind.__qualname__ = "builtins", heading
        return kind

    return named


@headed("A package is missing")
class PackageProblem(ImportError):
    """A package that a node needs is not installed."""


@headed("A file cannot be used")
class FileProblem(ValueError):
    """A file is missing, damaged, or another one than expected."""


@headed("An input cannot be used")
class InputProblem(ValueError):
    """What is connected to a node, or written into it, does not fit."""


@headed("The run stopped")
class RunProblem(RuntimeError):
    """What a node was doing cannot go on: values that are not finite, a full disk, a failed training."""


# The first that matches; all others, such as too little memory or a fault of ours, keep their types.
SHOWN_AS: tuple[tuple[tuple[type[Exception], ...], type[Exception]], ...] = (
    ((ImportError,), PackageProblem),
    ((WeightFileError, PictureError, FileNotFoundError), FileProblem),
    ((ValueError, TypeError), InputProblem),
    ((RuntimeError, OSError, FloatingPointError), RunProblem),
)


def for_people(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, with its own errors in the form that the page shows well."""
    wanted = wanted_kinds(node)

    @functools.wraps(node.execute.__func__)
    def execute(cls: type[io.ComfyNode], *args: object, **kwargs: object) -> io.NodeOutput:
        try:
            check_kinds(node, wanted, kwargs)
            # With the class that ComfyUI has prepared, which holds the hidden values of this run.
            return node.execute.__func__(cls, *args, **kwargs)
        except Exception as error:
            shown = shown_error(error)
            if shown is None:
                raise
            # Without the other error, which would tell everything twice; its frames are kept.
            raise shown.with_traceback(error.__traceback__) from None

    return type(node.__name__, (node,), {"execute": classmethod(execute), "__module__": node.__module__})


def shown_error(error: Exception) -> Exception | None:
    """The error as the page should show it; None to leave it as it is."""
    # ComfyUI gives its own advice on memory, and frees some, where it knows the type.
    if not raised_here(error.__traceback__) or comfy.model_management.is_oom(error):
        return None
    for kinds, shown in SHOWN_AS:
        if isinstance(error, kinds):
            text = str(error)
            # Ours have room, but may repeat what stands in a file.
            return shown(with_short_paths(text if len(text) <= LONGEST else shortened(text)))
    return None


def raised_here(traceback: TracebackType | None) -> bool:
    """Whether an error was raised by the code of this pack, and so with a message for people."""
    last = None
    while traceback is not None:
        last, traceback = traceback, traceback.tb_next
    return last is not None and any(map(Path(last.tb_frame.f_code.co_filename).is_relative_to, OURS))


def with_short_paths(message: str) -> str:
    """A message with the paths below ComfyUI's folders shortened, and below it where these folders are."""
    places = []
    for folder, name in sorted(known_folders(), key=lambda each: -len(each[0])):
        if f"{folder}{os.sep}" in message:
            message = message.replace(f"{folder}{os.sep}", f"{name}{os.sep}")
            places.append(f"{name} is {folder}")
    return "\n\n".join([message, *places])


def known_folders() -> Iterator[tuple[str, str]]:
    """ComfyUI's folders that our files lie in, and what people call them."""
    yield folder_paths.models_dir, "models"
    yield folder_paths.get_input_directory(), "input"
    yield folder_paths.get_output_directory(), "output"
    for kind in file_kinds():
        for folder in folder_paths.get_folder_paths(kind.folder):
            if not folder.startswith(folder_paths.models_dir):
                yield folder, f"{kind.folder} in {Path(folder).parent.name}"
