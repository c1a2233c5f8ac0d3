"""What the nodes have in common that read one file from a model folder."""
from __future__ import annotations

from typing import ClassVar

from comfy_api.latest import io

from .folders import ModelFiles


class FileNode(io.ComfyNode):
    """A node with an input `file`, which is one of `files`."""

    files: ClassVar[ModelFiles]

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        # ComfyUI leaves the check of an input that is named here to us. Its own answer, "Value not in list",
        # says neither where the file was expected nor where to get it.
        return cls.files.why_missing(file) or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **_: object) -> object:
        # ComfyUI gives all inputs, and runs the node each time if they are not taken.
        return cls.files.stamp(file)
