"""Packages that ComfyUI does not bring: imported where they are needed, and named where they are missing."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PIP_NAMES = {"skimage": "scikit-image"}  # where pip's name is not that of the import


@contextmanager
def needed_for(purpose: str) -> Iterator[None]:
    """Around imports: a missing package becomes an error that says what it is for and how to install it.

    Args:
        purpose: the first words of the error, such as "Charts".
    Raises:
        ModuleNotFoundError: with the name of the package as pip knows it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        package = PIP_NAMES.get(module, module)
        raise ModuleNotFoundError(
            f"{purpose}: expected the package {package}, got none. Install it with: pip install {package}",
            name=error.name,
        ) from error
