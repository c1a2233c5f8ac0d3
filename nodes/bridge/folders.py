"""Files in ComfyUI's folders: those that loaders offer and those that nodes write."""
from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...pit.files.known import first_of
from ...pit.files.pictures import file_name
from ...pit.files.published import file_kind, file_kinds, shipped_files
from ...pit.messages import ShortError, quoted, shortened

# A message lists no more files than this: a full folder must not bury the advice that follows the list.
SHOWN = 8


def register_model_folders() -> None:
    """Tell ComfyUI about our folders in `models`; those from extra_model_paths.yaml stay in front."""
    for folder in dict.fromkeys(kind.folder for kind in file_kinds()):
        # Not as the default path: that would push our folder before the user's own, and new files are
        # written to the first one.
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        # A folder that is new to ComfyUI comes without extensions, and would list files of every kind. One
        # that another pack has registered keeps the extensions that it has.
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        extensions = extensions | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[folder] = (paths, extensions)


class ModelFiles:
    """The files of one kind that a loader offers: those in ComfyUI's model folders and those that we ship."""

    def __init__(self, kind: str):
        self.kind, self.shipped = file_kind(kind), shipped_files(kind)

    def listed(self) -> list[str]:
        """Names of the files in the model folders, as ComfyUI lists them."""
        return folder_paths.get_filename_list(self.kind.folder)

    def options(self) -> list[str]:
        """What a loader offers; if there are no files, one entry says so."""
        return [*(self.listed() or [f"no file in models/{self.kind.folder}"]), *self.shipped]

    def why_missing(self, name: str) -> str | None:
        """None if the file is there; otherwise where it was expected, what is there, and where to get it."""
        # Only names from the list are accepted, so that no name leads out of the model folders.
        if name in self.shipped or name in self.listed():
            return None
        folders = folder_paths.get_folder_paths(self.kind.folder)
        # All files, unlike ComfyUI's list: this shows a file that has the wrong extension.
        found = sorted({file for folder in folders for file in folder_paths.recursive_search(folder)[0]})
        return shortened(
            f"{self.kind.loader} expected a file from {', '.join(folders)}, got {quoted(name)}. Found there: "
            f"{first_of(found, SHOWN) or 'nothing'}. {self.kind.where_to_get}"
        )

    def path(self, name: str) -> Path:
        """The path of an offered file. Raises FileNotFoundError with the text of `why_missing`."""
        missing = self.why_missing(name)
        if missing:
            raise FileNotFoundError(missing)
        return self.shipped.get(name) or Path(folder_paths.get_full_path_or_raise(self.kind.folder, name))

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Changes whenever the file does, so that its node runs again; errors as in `path`."""
        # ComfyUI only logs an error raised here, and then runs the node, which raises it for the user.
        return file_stamp(self.path(name))

    def folder_to_write(self) -> str:
        """Where new files of this kind go: the first of ComfyUI's folders for it."""
        return folder_paths.get_folder_paths(self.kind.folder)[0]


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Modification time in nanoseconds and size of a file; None if there is no file."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


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
