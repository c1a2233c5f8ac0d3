"""The record of pOps: its kinds of files and the published ones.

Repositories and file names are those of github.com/pOpsPaper/pOps and of the model cards that it names.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..files.published import Command, FileKind, PublishedFile, System, has_key

if TYPE_CHECKING:
    from torch import Tensor

OPERATORS_REPO, OPERATORS_LICENSE = "pOpsPaper/operators", "MIT, as its model card says"
PRIOR_REPO, DECODER_REPO = (f"kandinsky-community/kandinsky-2-2-{part}" for part in ("prior", "decoder"))
KANDINSKY_LICENSE = "Apache-2.0, as its model card says"
IP_ADAPTER_REPO, IP_ADAPTER_LICENSE = "h94/IP-Adapter", "Apache-2.0, as its model card says"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PRIOR_KEYS = r"(^|\.)prd_embedding$"
# Of its UNet, and of the normalization of its autoencoder, which other autoencoders with a codebook lack.
DECODER_KEYS = r"(^|\.)(add_embedding\.image_proj|encoder_hid_proj\.image_embeds|conv_norm_out\.norm_layer)\."
STATISTICS = r"(^|\.)clip_(mean|std)$"


def is_operator(state: Mapping[str, Tensor]) -> bool:
    """A prior without statistics: what trainings of operators save."""
    return has_key(PRIOR_KEYS)(state) and not has_key(STATISTICS)(state)


def operator_file(name: str) -> PublishedFile:
    """A published operator."""
    path = f"{name}/learned_prior.pth"
    return PublishedFile(f"pops-{name}", OPERATORS_REPO, f"models/{path}", f"pops/{path}", OPERATORS_LICENSE)


def kandinsky_files(name: str, repo: str, folder: str, *paths: str) -> tuple[PublishedFile, ...]:
    """Files of a pipeline, in the folders that diffusers has for them."""
    return tuple(
        PublishedFile(name, repo, path, f"{folder}/{repo.rpartition('/')[2]}/{path}", KANDINSKY_LICENSE)
        for path in paths
    )


OPERATOR = FileKind(
    "pops_operator", "a pOps operator", "pops", "Load pOps Operator", "Train pOps Operator",
    is_one=is_operator,
    published=tuple(map(operator_file, ("texturing", "union", "scene", "instruct"))),
)
KANDINSKY_PRIOR = FileKind(
    "kandinsky_prior", "a prior of Kandinsky 2.2, or an operator with its statistics", "kandinsky_prior",
    "Load pOps Operator", is_one=has_key(PRIOR_KEYS),
    published=kandinsky_files(
        "kandinsky-prior", PRIOR_REPO, "kandinsky_prior", f"prior/{WEIGHTS}", "prior/config.json",
    ),
)
KANDINSKY_DECODER = FileKind(
    "kandinsky_decoder", "a decoder of Kandinsky 2.2", "kandinsky_decoder", "Load Kandinsky Decoder",
    is_one=has_key(DECODER_KEYS),
    published=kandinsky_files(
        "kandinsky-decoder", DECODER_REPO, "kandinsky_decoder", f"unet/{WEIGHTS}", "unet/config.json",
        f"movq/{WEIGHTS}", "movq/config.json", "scheduler/scheduler_config.json",
    ),
)
EMBEDDING = FileKind(
    "image_embedding", "an image embedding", "image_embeddings", "Load Embedding", "Save Embedding",
    is_one=has_key("^image_embeds$"),
)
BASE_ADAPTER = FileKind(
    "base_ip_adapter", "a base IP-Adapter", "ipadapter", "Load Base IP-Adapter",
    published=(
        PublishedFile(
            "ip-adapter-bigg", IP_ADAPTER_REPO, "sdxl_models/ip-adapter_sdxl.safetensors",
            "ipadapter/ip-adapter_sdxl.safetensors", IP_ADAPTER_LICENSE,
        ),
    ),
)
BIGG_VISION = FileKind(
    "clip_vision_bigg", "the CLIP vision encoder ViT-bigG", "clip_vision", "Load CLIP Vision",
    published=(
        PublishedFile(
            "clip-vision-bigg", IP_ADAPTER_REPO, "sdxl_models/image_encoder/model.safetensors",
            "clip_vision/CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors", IP_ADAPTER_LICENSE,
        ),
    ),
)

POPS = System(
    kinds=(EMBEDDING, OPERATOR, KANDINSKY_PRIOR, KANDINSKY_DECODER, BASE_ADAPTER, BIGG_VISION),
    commands={"train-pops": Command("train_pops", "train a pOps operator on pictures")},
)
