"""The record of PartCraft: its kinds of files, and the published ones.

Repositories and file names are those in the demos of github.com/kamwoh/partcraft.
"""
from __future__ import annotations

from ..files.published import Command, FileKind, PublishedFile, System, has_key

LICENSE = "none stated with the published code, see the model card"


def published_words(name: str, repo: str, checkpoint: str) -> tuple[PublishedFile, ...]:
    """Part words, and the LoRA that was trained with them."""
    return tuple(
        PublishedFile(name, repo, f"{checkpoint}/{file}", f"part_words/{name}/{file}", LICENSE)
        for file in ("pytorch_model_1.bin", "pytorch_model.bin")
    )


PART_WORDS = FileKind(
    "part_words", "part words", "part_words", "Load PartCraft", "Train PartCraft",
    # A table of words, and a vector for each part; ours have the name of the whole before them.
    is_one=lambda state: any(
        {f"{prefix}embedding.weight", f"{prefix}pe"} <= state.keys() for prefix in ("", "mapper.")
    ),
    published=(
        *published_words("partcraft-cub", "kamwoh/dreamcreature-sd1.5-cub200", "checkpoint-74900"),
        *published_words("partcraft-dogs", "kamwoh/dreamcreature-sd1.5-dog", "checkpoint-150000"),
    ),
)
PART_CLUSTERS = FileKind(
    "part_clusters", "clusters of parts", "part_clusters", "Load Part Clusters", "Save Part Clusters",
    is_one=has_key(r"^foreground_background$"),
)
DINO = FileKind(
    "dino", "a DINOv2 encoder", "clip_vision", "Load DINOv2",
    is_one=lambda state: {
        "embeddings.cls_token", "embeddings.patch_embeddings.projection.weight"
    } <= state.keys(),
    published=(
        # The published clusters stand on this one; ComfyUI's own loader knows the large and the giant one.
        PublishedFile(
            "dinov2-base", "facebook/dinov2-base", "model.safetensors", "clip_vision/dinov2-base.safetensors",
            "Apache-2.0, as its model card says",
        ),
    ),
)

PARTCRAFT = System(
    kinds=(PART_WORDS, PART_CLUSTERS, DINO),
    commands={
        "train-partcraft": Command("train_partcraft", "find the parts of pictures, and train words for them"),
    },
)
