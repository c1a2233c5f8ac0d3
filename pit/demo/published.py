"""The creatures' record: their commands, and what of their files the loaders offer."""
from __future__ import annotations

from ..files.published import Command, System
from .models.library import DIRECTION_FILES, LORA_FILES, OPTIMIZER_FILES, TOKEN_FILES
from .models.operator_files import OPERATOR_FILES
from .models.part_files import CLUSTER_FILES, DINO_FILES, WORD_FILES

CREATURES = System(
    commands={
        "demo-train": Command("demo_train", "train the creature models from scratch"),
        "demo-measure": Command("demo_measure", "measure how well the creature models keep parts"),
    },
    shipped={
        "ip_direction": DIRECTION_FILES, "ip_tokens": TOKEN_FILES, "ip_lora": LORA_FILES,
        "pops_operator": OPERATOR_FILES, "embedding_optimizer": OPTIMIZER_FILES,
        "dino": DINO_FILES, "part_clusters": CLUSTER_FILES, "part_words": WORD_FILES,
    },
)
