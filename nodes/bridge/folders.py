"""Files in ComfyUI's folders: those that loaders offer and those that nodes write."""
from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import folder_paths
import yaml
from comfy.cli_args import args

from ...pit.files.known import first_of
from ...pit.files.pictures import file_name
from ...pit.files.published import file_kind, file_kinds, shipped_files
from ...pit.messages import ShortError, quoted, shortened

# A message lists no more files than this: a full folder must not bury the advice that follows the list.
SHOWN = 8


def register_model_folders() -> None:
    """Tell ComfyUI about our folders in `models`; those from extra_model_paths.yaml stay in front."""
    for folder in dict.fromkeys(kind.folder for kind in file_kinds()):
        # Not as the default path: that would push our folder before the user's own.
        folder_paths.add_model_folder_path(folder, own_model_folder(folder))
        # A folder that is new to ComfyUI comes without extensions, and would list files of every kind. One
        # that another pack has registered keeps the extensions that it has.
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        extensions = extensions | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[folder] = (paths, extensions)


def own_model_folder(folder: str) -> str:
    """Our folder of this name in `models`."""
    return os.path.join(folder_paths.models_dir, folder)


def extra_paths_files() -> list[Path]:
    """The files from which ComfyUI has taken shared model folders, as its main.py finds them."""
    own = Path(folder_paths.__file__).with_name("extra_model_paths.yaml")
    return [own, *(Path(name) for names in args.extra_model_paths_config or () for name in names)]


def has_shared_default(folder: str) -> bool:
    """Whether ComfyUI's files of extra paths make a shared folder the default for a kind of files."""
    for file in extra_paths_files():
        sections = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
        for section in (sections or {}).values():
            if section and folder in section and section.get("is_default"):
                return True
    return False


def same_but_for_separators(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is `name` written with slashes or backslashes; None if there is none."""
    known = list(names)
    if name in known:
        return name
    return next((each for each in known if each.replace("\\", "/") == name.replace("\\", "/")), None)


class ModelFiles:
    """The files of one kind that a loader offers: those in ComfyUI's model folders and those that we ship."""

    def __init__(self, kind: str):
        self.kind, self.shipped = file_kind(kind), shipped_files(kind)

    def listed(self) -> list[str]:
        """Names of the files in the model folders, as ComfyUI lists them."""
        return folder_paths.get_filename_list(self.kind.folder)

    def options(self) -> list[str]:
        """What a loader offers; if there is nothing at all, one entry says so."""
        # A new node stands on the first entry, so that must be something that can be loaded.
        return [*self.listed(), *self.shipped] or [f"no file in models/{self.kind.folder}"]

    def offered(self, name: str) -> str | None:
        """An offered file by the name that it has here; None if it is not offered.

        Graphs that were saved on Windows separate folders by backslashes, and all others by slashes.
        """
        # Only names from the list are accepted, so that no name leads out of the model folders.
        return same_but_for_separators(name, [*self.listed(), *self.shipped])

    def why_missing(self, name: str | None) -> str | None:
        """None if the file is there; otherwise where it was expected, what is there, and where to get it.

        A name that comes over a link is not known before the graph runs: ComfyUI gives None in its place.
        """
        if name is None or self.offered(name) is not None:
            return None
        place, found = f"models/{self.kind.folder}", [*self.listed(), *self.shipped]
        return shortened(
            f"{self.kind.loader} expected a file from {place}, got {quoted(name)}. Found there: "
            f"{first_of(found, SHOWN) or 'nothing'}. {self.kind.where_to_get} Looked in: "
            f"{', '.join(folder_paths.get_folder_paths(self.kind.folder))}."
        )

    def path(self, name: str) -> Path:
        """The path of an offered file. Raises FileNotFoundError with the text of `why_missing`."""
        here = self.offered(name)
        if here is None:
            raise FileNotFoundError(self.why_missing(name))
        return self.shipped.get(here) or Path(folder_paths.get_full_path_or_raise(self.kind.folder, here))

    def stamp(self, name: str | None) -> tuple[int, ...] | None:
        """Changes whenever the file does, so that its node runs again; errors as in `path`.

        None for a name that comes over a link: its node runs again whenever that link brings another one.
        """
        # ComfyUI only logs an error raised here, and then runs the node, which raises it for the user.
        return None if name is None else file_stamp(self.path(name))

    def folder_to_write(self) -> str:
        """Where new files of this kind go: our own folder, or the one that the user has made the default."""
        # ComfyUI reads that file before it loads us: its folders come first, whether default or not.
        if has_shared_default(self.kind.folder):
            return folder_paths.get_folder_paths(self.kind.folder)[0]
        return own_model_folder(self.kind.folder)


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """Times in nanoseconds and size of a file; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    # Copying tools can give a file the modification time of another, but not the time at which its entry was
    # last changed (on Windows: at which it was made).
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size


def own_folder(root: str, name: str) -> Path:
    """The folder `name` directly in `root`, not created yet.

    Anyone who can queue a graph chooses the name, so every name that would lead elsewhere raises ValueError.
    """
    # `file_name` refuses slashes, drives and dots. What it cannot see is a link on disk: one that leads out
    # of root, or back to root itself, where the files of all names would get mixed up.
    safe = file_name(name.strip())
    folder = os.path.join(root, safe)
    inside = folder_paths.is_within_directory(root, folder)
    if not inside or os.path.realpath(folder) == os.path.realpath(root):
        raise ShortError(
            f"Expected the name of a folder in {root}, got {quoted(name)}, which leads elsewhere. Choose a "
            "plain name, such as my_creatures."
        )
    return Path(folder)


def own_file(root: str, name: str) -> Path:
    """The file `name`.safetensors directly in `root`, which is made if needed; errors as in `own_folder`."""
    folder = own_folder(root, name.strip().removesuffix(".safetensors"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.with_name(f"{folder.name}.safetensors")
