"""The published files that the pack works with: where they lie on the Hugging Face hub and where they go.

Repositories and file names are those in the download scripts and the README of github.com/eladrich/PiT.
"""
from __future__ import annotations

from dataclasses import dataclass

PIT_REPO = "kfirgold99/Piece-it-Together"
IP_ADAPTER_REPO = "h94/IP-Adapter"

LICENCES = {
    PIT_REPO: "none stated with the published code, see the model card",
    IP_ADAPTER_REPO: "Apache-2.0, as its model card says",
}


@dataclass(frozen=True)
class PublishedFile:
    """A file, or with a trailing slash in `path` and `target` a whole folder, on the hub.

    `name` is what a user types after `python -m pit download`, `kind` what a node looks for, `target` the
    place below ComfyUI's `models` folder.
    """

    name: str
    kind: str
    repo: str
    path: str
    target: str

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")

    @property
    def licence(self) -> str:
        return LICENCES[self.repo]


def _prior_files(name: str) -> tuple[PublishedFile, ...]:
    """An IP-Prior is a weight file and the training configuration that names its head count."""
    return tuple(
        PublishedFile(name, "ip_prior", PIT_REPO, f"models/{name}_ckpt/{file}", f"ip_prior/{name}/{file}")
        for file in ("prior.ckpt", "cfg.yaml")
    )


def _lora_file(name: str) -> PublishedFile:
    path = f"{name}/pytorch_lora_weights.safetensors"
    return PublishedFile("ip-lora", "ip_lora", PIT_REPO, path, f"loras/pit/{name}.safetensors")


PUBLISHED_FILES = (
    *_prior_files("characters"),
    *_prior_files("products"),
    *_prior_files("plush"),
    PublishedFile(
        "ip-adapter-plus", "ip_adapter", IP_ADAPTER_REPO,
        "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors",
        "ipadapter/ip-adapter-plus_sdxl_vit-h.safetensors",
    ),
    PublishedFile(
        "clip-vit-h", "clip_vision", IP_ADAPTER_REPO,
        "models/image_encoder/model.safetensors",
        "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    ),
    _lora_file("character_sheet"),
    _lora_file("background_generation"),
    PublishedFile("directions", "ip_direction", PIT_REPO, "ip_space_edit_directions/", "ip_directions/"),
)

DOWNLOAD_NAMES = tuple(dict.fromkeys(file.name for file in PUBLISHED_FILES))


def where_to_get(kind: str) -> str:
    """A sentence for error messages: which published file, where it goes, and the command that fetches it.

    `kind` is "ip_adapter", "ip_prior", "clip_vision", "ip_lora" or "ip_direction"; others are a KeyError.
    """
    names = tuple(dict.fromkeys(file.name for file in PUBLISHED_FILES if file.kind == kind))
    if not names:
        raise KeyError(kind)
    files = [file for file in PUBLISHED_FILES if file.name == names[0]]
    places = " and ".join(f"{file.path} to ComfyUI/models/{file.target}" for file in files)
    others = f" (also published: {', '.join(names[1:])})" if names[1:] else ""
    return (
        f"Copy {places} from the Hugging Face repository {files[0].repo}, or run "
        f"`python -m pit download {names[0]} --models ComfyUI/models` in the folder of this pack{others}."
    )
