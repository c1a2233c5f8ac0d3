"""The record of Parts2Whole: its kinds of files, and the published ones.

Repositories and file names are those of github.com/huanngzh/Parts2Whole and of its model on the hub.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..files.published import Command, FileKind, PublishedFile, System, has_key

if TYPE_CHECKING:
    from torch import Tensor

REPO = "huanngzh/Parts2Whole"
LICENSE = "none stated with the published code, see the model card"
FOLDER = "parts2whole"
LOADER, WRITER = "Load Parts2Whole", "Train Parts2Whole"
NAME = "parts2whole"


def published(path: str, target: str = "") -> PublishedFile:
    """A file or folder that `python -m pit download parts2whole` fetches."""
    return PublishedFile(NAME, REPO, path, target or f"{FOLDER}/published/{path}", LICENSE)


def is_reference_unet(state: Mapping[str, Tensor]) -> bool:
    """A UNet in diffusers' keys without its last layers."""
    return "conv_in.weight" in state and "conv_out.weight" not in state and any(
        key.startswith("up_blocks.") for key in state
    )


DECOUPLED = FileKind(
    "parts2whole_decoupled", "a decoupled attention of Parts2Whole", FOLDER, LOADER, WRITER,
    is_one=has_key(r"\.processor\.to_[kv]_dc\.weight$"),
    published=(published("decoupled_attn.pth"),),
)
REFERENCE_UNET = FileKind(
    "parts2whole_reference_unet", "a reference UNet of Parts2Whole", FOLDER, LOADER, WRITER,
    is_one=is_reference_unet, published=(published("reference_unet/"),),
)
POSE_GUIDER = FileKind(
    "parts2whole_pose_guider", "a pose guider of Parts2Whole", FOLDER, LOADER, WRITER,
    is_one=lambda state: {"conv_in.weight", "blocks.0.weight", "conv_out.weight"} <= set(state),
    published=(published("pose_guider/"),),
)
UNET = FileKind(
    "parts2whole_unet", "a denoising UNet of Parts2Whole", FOLDER, LOADER, WRITER,
    published=(published("unet/"),),
)
# What it reads that ComfyUI itself loads: the encoders, and the VAE that the published pipeline takes.
IMAGE_ENCODER = FileKind(
    "parts2whole_image_encoder", "a CLIP vision encoder", "clip_vision", "Load CLIP Vision",
    published=(published("image_encoder/", f"clip_vision/{FOLDER}/"),),
)
TEXT_ENCODER = FileKind(
    "parts2whole_text_encoder", "a text encoder", "text_encoders", "Load CLIP",
    published=(published("text_encoder/", f"text_encoders/{FOLDER}/"),),
)
VAE = FileKind(
    "parts2whole_vae", "a VAE", "vae", "Load VAE",
    published=(
        PublishedFile(
            NAME, "stabilityai/sd-vae-ft-mse", "diffusion_pytorch_model.safetensors",
            "vae/sd-vae-ft-mse.safetensors", "MIT, as its model card says",
        ),
    ),
)
SEGMENTER = FileKind(
    "clothes_segmenter", "a SegFormer for clothes", "clothes_segmenter", "Clothes Parser",
    is_one=has_key(r"^segformer\.encoder\."),
    published=tuple(
        PublishedFile(
            "clothes-segmenter", "mattmdjaga/segformer_b2_clothes", file,
            f"clothes_segmenter/segformer_b2_clothes/{file}", "MIT, as its model card says",
        )
        for file in ("model.safetensors", "config.json")
    ),
)
# Not on the hub: torchvision and the package lpips bring them along.
LPIPS = FileKind(
    "lpips", "weights of LPIPS", "lpips", "Measure Pictures", "The package lpips",
    is_one=has_key(r"^lin0\.model\.1\.weight$"),
)

PARTS2WHOLE = System(
    kinds=(
        DECOUPLED, REFERENCE_UNET, POSE_GUIDER, UNET, IMAGE_ENCODER, TEXT_ENCODER, VAE, SEGMENTER, LPIPS,
    ),
    commands={
        "train-parts2whole": Command(
            "train_parts2whole", "train Parts2Whole on pictures, their poses, and references of their parts"
        ),
    },
)
