"""Files of ComfyUI's folders: those that loaders offer, and those that nodes write."""
from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...pit.files.known import first_of
from ...pit.files.pictures import file_name
from ...pit.files.published import file_kind, file_kinds, shipped_files

SHOWN = 8


def register_model_folders() -> None:
    """Tell ComfyUI of our folders below `models`; those of extra_model_paths.yaml stay in front."""
    for folder in dict.fromkeys(kind.folder for kind in file_kinds()):
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        extensions = extensions | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[folder] = (paths, extensions)


class ModelFiles:
    """The files that a loader offers: those of a kind in ComfyUI's model folders, and those that we ship."""

    def __init__(self, kind: str):
        self.kind, self.shipped = file_kind(kind), shipped_files(kind)

    def listed(self) -> list[str]:
        """Names of the files in the model folders, as ComfyUI lists them."""
        return folder_paths.get_filename_list(self.kind.folder)

    def options(self) -> list[str]:
        """What a loader offers; where there is no file, one entry says so."""
        return [*(self.listed() or [f"no file in models/{self.kind.folder}"]), *self.shipped]

    def why_missing(self, name: str) -> str | None:
        """None if the file is there, else what was wanted, where, what is there, and where to get it.

        Only names that are listed are accepted, so that no name leads out of the model folders.
        """
        if name in self.shipped or name in self.listed():
            return None
        folders = folder_paths.get_folder_paths(self.kind.folder)
        found = sorted({file for folder in folders for file in folder_paths.recursive_search(folder)[0]})
        return (
            f"{self.kind.loader} is set to {name!r}. It looked in {', '.join(folders)} and found "
            f"{first_of(found, SHOWN) or 'nothing'} there. {self.kind.where_to_get}"
        )

    def path(self, name: str) -> Path:
        """The path of an offered file. Raises FileNotFoundError with the text of `why_missing`."""
        missing = self.why_missing(name)
        if missing:
            raise FileNotFoundError(missing)
        return self.shipped.get(name) or Path(folder_paths.get_full_path_or_raise(self.kind.folder, name))

    def stamp(self, name: str) -> tuple[int, int] | None:
        """What changes with the file, so that its node runs again; errors as in `path`."""
        return file_stamp(self.path(name))

    def folder_to_write(self) -> str:
        """Where new files of this kind go: the first of ComfyUI's folders for it."""
        return folder_paths.get_folder_paths(self.kind.folder)[0]


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Modification time in nanoseconds and size of a file; None where there is none."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def own_folder(root: str, name: str) -> Path:
    """The folder `name` directly below `root`, not made yet.

    Anyone who can queue a graph chooses the name, so ValueError meets all that would lead elsewhere.
    """
    safe = file_name(name.strip())
    folder = os.path.join(root, safe)
    inside = folder_paths.is_within_directory(root, folder)
    if not inside or os.path.realpath(folder) == os.path.realpath(root):
        raise ValueError(f"{name!r} leads out of {root}. Choose a plain name, such as my_creatures.")
    return Path(folder)


def own_file(root: str, name: str) -> Path:
    """The file `name`.safetensors directly below `root`, whose folder is there; errors as in `own_folder`."""
    folder = own_folder(root, name.strip().removesuffix(".safetensors"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.with_name(f"{folder.name}.safetensors")
