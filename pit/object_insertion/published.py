"""The record of object insertion: its kinds of files, and the published ones.

Names of files are those of a saved pipeline; `emb_opt.pt` lies beside them in the root of the repository.
"""
from __future__ import annotations

from ..files.published import Command, FileKind, PublishedFile, System, has_key

REPO = "ADT1999/instruct-pix2pix-model-final"
LICENSE = "none stated with the published code, see the model card"
FOLDER = "object_insertion"
NAME = "object-insertion"
UNET_PATH = "unet/diffusion_pytorch_model.safetensors"
BIAS_TARGET = f"{FOLDER}/conv_in_bias.safetensors"


def published(path: str, target: str) -> tuple[PublishedFile, ...]:
    """A file of the published pipeline."""
    return (PublishedFile(NAME, REPO, path, target, LICENSE),)


EMBEDDING_OPTIMIZER = FileKind(
    "embedding_optimizer", "an Embedding Optimizer", FOLDER, "Load Embedding Optimizer",
    writer="Train Embedding Optimizer",
    is_one=has_key(r"(^|\.)(attention_pooling\.in_proj_weight|mlp_fc1\.weight|seq_projection\.weight)$"),
    published=published("emb_opt.pt", f"{FOLDER}/emb_opt.pt"),
)
ATTENTION = FileKind(
    "insertion_attention", "what was learned of an InstructPix2Pix's attention", "loras", "Load LoRA",
    writer="Train Embedding Optimizer",
)
INSTRUCT_UNET = FileKind(
    "instruct_unet", "an InstructPix2Pix UNet", FOLDER, "Patch InstructPix2Pix Bias",
    published=published(UNET_PATH, f"{FOLDER}/unet.safetensors"),
)
CLIP_VISION = FileKind(
    "clip_vision_l", "the CLIP vision encoder ViT-L/14", "clip_vision", "Load CLIP Vision",
    published=published("image_encoder/model.safetensors", "clip_vision/clip-vit-large-patch14.safetensors"),
)
VAE = FileKind(
    "insertion_vae", "the VAE of Stable Diffusion 1.5", "vae", "Load VAE",
    published=published("vae/diffusion_pytorch_model.safetensors", "vae/object_insertion.safetensors"),
)

OBJECT_INSERTION = System(
    kinds=(EMBEDDING_OPTIMIZER, ATTENTION, INSTRUCT_UNET, CLIP_VISION, VAE),
    commands={
        "download-insertion-bias": Command(
            "download_insertion_bias", "fetch the bias of the published UNet: 1 kB instead of its 3.4 GB"
        ),
        "make-triplets": Command("make_triplets", "make triplets to train with from local files of PIPE"),
        "train-object-insertion": Command(
            "train_object_insertion", "train an Embedding Optimizer on triplets"
        ),
    },
)
