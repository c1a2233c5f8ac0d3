"""Files of ComfyUI's folders: those that loaders offer, and those that nodes write."""
from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...pit.files.pictures import file_name
from ...pit.files.published import where_to_get

FOLDERS = {
    "ip_adapter": "ipadapter", "ip_prior": "ip_prior", "ip_lora": "loras", "ip_direction": "ip_directions",
    "ip_tokens": "ip_tokens",
}
LOADERS = {
    "ip_adapter": "Load IP-Adapter+", "ip_prior": "Load IP-Prior", "ip_lora": "Apply IP-LoRA",
    "ip_direction": "Load IP+ Direction", "ip_tokens": "Load IP+ Tokens",
}
MADE_BY = {"ip_tokens": "Save IP+ Tokens writes such files."}


def register_model_folders() -> None:
    """Tell ComfyUI of our folders below `models`; those of extra_model_paths.yaml stay in front."""
    for folder in FOLDERS.values():
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        extensions = extensions | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[folder] = (paths, extensions)


def model_files(kind: str) -> list[str]:
    """What a loader offers: the files of a kind, or one entry that says that there are none."""
    return folder_paths.get_filename_list(FOLDERS[kind]) or [f"no file in models/{FOLDERS[kind]}"]


def why_missing(kind: str, name: str) -> str | None:
    """None if the file is there, else what was wanted, where it was sought, what is there, where to get it.

    Only names that ComfyUI itself lists are accepted, so that no name leads out of the model folders.
    """
    if name in folder_paths.get_filename_list(FOLDERS[kind]):
        return None
    folders = folder_paths.get_folder_paths(FOLDERS[kind])
    found = sorted({file for folder in folders for file in folder_paths.recursive_search(folder)[0]})
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"{LOADERS[kind]} is set to {name!r}. It looked in {', '.join(folders)} and found "
        f"{', '.join(found[:8]) or 'nothing'}{more} there. {MADE_BY.get(kind) or where_to_get(kind)}"
    )


def model_path(kind: str, name: str) -> str:
    """The path of a listed file. Raises FileNotFoundError with the text of `why_missing`."""
    missing = why_missing(kind, name)
    if missing:
        raise FileNotFoundError(missing)
    return folder_paths.get_full_path_or_raise(FOLDERS[kind], name)


def file_stamp(path: str) -> tuple[int, int] | None:
    """Modification time in nanoseconds and size of a file; None where there is none."""
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
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
