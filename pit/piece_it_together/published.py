"""The record of Piece it Together: its kinds of files, the published ones, and its commands.

Repositories and file names are those in the download scripts and the README of github.com/eladrich/PiT.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..files.published import Command, FileKind, Lookalike, PublishedFile, System, has_key

if TYPE_CHECKING:
    from torch import Tensor

PIT_REPO = "kfirgold99/Piece-it-Together"
PIT_LICENSE = "none stated with the published code, see the model card"
IP_ADAPTER_REPO = "h94/IP-Adapter"
IP_ADAPTER_LICENSE = "Apache-2.0, as its model card says"
PLUS_WANTED = "Use the -plus file, ip-adapter-plus_sdxl_vit-h, in models/ipadapter."
DIRECTION_ROWS = (16, 257)  # of token space, and of the features of CLIP ViT-H


def is_direction(state: Mapping[str, Tensor]) -> bool:
    """One matrix with as many rows as a picture has tokens or features, perhaps in a batch of one."""
    # Published directions are bare tensors, which have no name of their own, so that the shape must decide.
    if len(state) != 1:
        return False
    shape = next(iter(state.values())).shape
    return len(shape) in (2, 3) and shape[-2] in DIRECTION_ROWS


def prior_files(name: str) -> tuple[PublishedFile, ...]:
    """An IP-Prior: a weight file, and the training configuration that names its head count."""
    return tuple(
        PublishedFile(name, PIT_REPO, f"models/{name}_ckpt/{file}", f"ip_prior/{name}/{file}", PIT_LICENSE)
        for file in ("prior.ckpt", "cfg.yaml")
    )


def lora_file(name: str) -> PublishedFile:
    """A published IP-LoRA."""
    path = f"{name}/pytorch_lora_weights.safetensors"
    return PublishedFile("ip-lora", PIT_REPO, path, f"loras/pit/{name}.safetensors", PIT_LICENSE)


IP_PRIOR = FileKind(
    "ip_prior", "an IP-Prior", "ip_prior", "Load IP-Prior", "Train IP-Prior",
    is_one=has_key(r"(^|\.)x_embedder\.weight"),
    published=(*prior_files("characters"), *prior_files("products"), *prior_files("plush")),
)
IP_ADAPTER = FileKind(
    "ip_adapter", "an IP-Adapter", "ipadapter", "Load IP-Adapter+",
    is_one=has_key(r"^ip_adapter\."),
    # The first that matches counts, and a FaceID adapter may have a two-layer projection, too.
    lookalikes=(
        Lookalike(
            has_key(r"(^|\.)(image_proj_model|adapter_modules)\."),
            "a training checkpoint of an IP-Adapter", "Take the adapter out of it with "
            "`python -m pit convert model.safetensors ip-adapter.safetensors` in the folder of this pack.",
        ),
        Lookalike(
            has_key(r"^ip_adapter\..*_lora\.|^image_proj\.perceiver_resampler\."),
            "a FaceID IP-Adapter", PLUS_WANTED,
        ),
        Lookalike(
            has_key(r"^image_proj\.proj\.\d"),
            "an IP-Adapter with a two-layer projection, for faces", PLUS_WANTED,
        ),
        Lookalike(
            has_key(r"^image_proj\.proj\.weight"),
            "a basic IP-Adapter: 4 tokens from a linear projection", PLUS_WANTED,
        ),
    ),
    published=(
        PublishedFile(
            "ip-adapter-plus", IP_ADAPTER_REPO, "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors",
            "ipadapter/ip-adapter-plus_sdxl_vit-h.safetensors", IP_ADAPTER_LICENSE,
        ),
    ),
)
CLIP_VISION = FileKind(
    "clip_vision", "a CLIP vision encoder", "clip_vision", "Load CLIP Vision",
    published=(
        PublishedFile(
            "clip-vit-h", IP_ADAPTER_REPO, "models/image_encoder/model.safetensors",
            "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", IP_ADAPTER_LICENSE,
        ),
    ),
)
IP_LORA = FileKind(
    "ip_lora", "a LoRA", "loras", "Apply IP-LoRA", "Train IP-LoRA",
    is_one=has_key(r"[._]lora[._](up|down|A|B)\.|\.(hada|lokr)_w"),
    published=(lora_file("character_sheet"), lora_file("background_generation")),
)
IP_DIRECTION = FileKind(
    "ip_direction", "an edit direction", "ip_directions", "Load IP+ Direction", "Save IP+ Direction",
    is_one=is_direction,
    published=(
        PublishedFile("directions", PIT_REPO, "ip_space_edit_directions/", "ip_directions/", PIT_LICENSE),
    ),
)
IP_TOKENS = FileKind(
    "ip_tokens", "IP+ tokens", "ip_tokens", "Load IP+ Tokens", "Save IP+ Tokens", is_one=has_key("^uncond$"),
)

PIECE_IT_TOGETHER = System(
    kinds=(IP_TOKENS, IP_DIRECTION, IP_ADAPTER, IP_LORA, IP_PRIOR, CLIP_VISION),
    commands={
        "make-parts": Command("make_parts", "cut pictures into parts, as a dataset to train on"),
        "encode-dataset": Command("encode_dataset", "encode a dataset into a token cache"),
        "train-prior": Command("train_prior", "train an IP-Prior on a token cache"),
        "train-ip-lora": Command("train_ip_lora", "train an IP-LoRA on pictures, captions and references"),
    },
)
