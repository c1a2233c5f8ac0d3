"""Packages that ComfyUI does not bring: imported where they are needed, and named where they are missing."""
from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PIP_NAMES = {"skimage": "scikit-image"}  # where pip's name is not that of the import


TRAINING = ("accelerate", "peft")
LORA_TRAINING = (*TRAINING, "diffusers")


def check_packages(purpose: str, modules: Sequence[str]) -> None:
    """Import packages, so that an error names all that are missing before any work is done.

    Args:
        purpose: the first words of the error, such as "Train IP-Prior".
    Raises:
        ModuleNotFoundError: with the command that installs them for the Python that runs this.
        ImportError: one of them is there, but cannot be imported.
    """
    missing = [module for module in modules if not _imports(module, purpose)]
    if missing:
        names = [PIP_NAMES.get(module, module) for module in missing]
        raise ModuleNotFoundError(
            f"{purpose}: expected {'the package ' if len(names) == 1 else 'the packages '}"
            f"{' and '.join(names)}, got none. Run {_installing(names)} and restart.", name=missing[0],
        )


def _imports(module: str, purpose: str) -> bool:
    """Whether a package is there. Raises ImportError if it is, but cannot be imported."""
    try:
        pkgutil.resolve_name(f"{module}:")  # the colon: all of it is a module
    except ModuleNotFoundError as error:
        # It may be there, and lack a package of its own.
        missing = (error.name or module).partition(".")[0]
        if missing == module:
            return False
        raise ModuleNotFoundError(
            f"{purpose}: expected the package {missing}, which {module} needs, got none. Run "
            f"{_installing([missing])} and restart.", name=missing,
        ) from error
    except ImportError as error:
        raise ImportError(
            f"{purpose}: expected the package {module} to fit the others, got: {error}. Run "
            f"{_installing(['--upgrade', module])} and restart.", name=module,
        ) from error
    return True


def _installing(names: Sequence[str]) -> str:
    """The command for the Python that runs this: a portable ComfyUI has one of its own."""
    return f'`"{sys.executable}" -m pip install {" ".join(names)}`'


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
