"""The archive that `comfy node publish` uploads: what git tracks, but for what .comfyignore names."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

from dev import ROOT

# The rules of comfy-cli 1.23, which matches .comfyignore as git matches .gitignore.
LISTED = ("--cached",)
IGNORED = ("--cached", "--ignored", "--exclude-from=.comfyignore")


def git_files(*options: str) -> set[str]:
    """Files of the repository that are there, as `git ls-files` lists them."""
    # The clone may belong to another user than the one who runs this.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", *options]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listing.split("\0") if name and (ROOT / name).is_file()}


def published_files(others: Sequence[str] = ()) -> list[str]:
    """The files of the archive; `others` is ("--others", "--exclude-standard") for new ones, too."""
    return sorted(git_files(*LISTED, *others) - git_files(*IGNORED, *others[:1]))


def write_archive(path: Path) -> None:
    """Write the archive as comfy-cli does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in published_files():
            archive.write(ROOT / name, name)
