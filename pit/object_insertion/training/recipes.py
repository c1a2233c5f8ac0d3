"""How an Embedding Optimizer is trained: its own settings and the presets.

Source of `published`: the command in the README of the published code, and what that code does. It sets out
to train the UNet's cross-attention as well, but looks for it under names that no UNet has, so that it trains
the optimizer alone.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from ...training.recipes import Recipe
from ..condition import BLANK, NULLS, ZEROS

RESULT = "emb_opt.safetensors"
ATTENTION = "attention.safetensors"
"""What was learned of the UNet, in a layout that ComfyUI's own LoRA loader reads."""
ALONE, PROJECTIONS, LORA = "optimizer", "projections", "lora"
TRAINS = (ALONE, PROJECTIONS, LORA)
INSERTION_CHOICES = {"trains": TRAINS, "null": NULLS}


@dataclass(frozen=True)
class InsertionRecipe(Recipe):
    """The settings for training an Embedding Optimizer.

    Attributes:
        trains: the optimizer alone, or with the key and value projections of the UNet's cross-attention, or
            with a LoRA on them.
        rank: of the LoRA's matrices.
        projection_share: how far the projections go with a step, beside the optimizer; 0.1 as published.
        dropping: share of samples without the object, another one without the scene, a third one without
            both: what guidance needs. The published command drops nothing.
        null: what stands for no object: zeros, as the published inference has it, or the blank picture, as
            its training had it.
    """

    trains: str = ALONE
    rank: int = 16
    projection_share: float = 0.1
    dropping: float = 0.05
    null: str = ZEROS

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        super().check()
        self.check_choices(INSERTION_CHOICES)
        self.check_at_least_one("rank")
        self.check_from_zero("projection_share")
        if not 0 <= self.dropping <= 1 / 3:  # for each of three kinds
            raise ValueError(f"Expected dropping to lie between 0 and 1/3, got {self.dropping}.")


PUBLISHED = InsertionRecipe(
    steps=100_000, batch=16, learning_rate=1e-4, weight_decay=0.01, dropping=0.0, null=BLANK,
)
"""The published recipe: 100 epochs at a constant rate, without dropping. Its faults are mended all the same:
the optimizer is saved and resumed, validation shows pictures, and the last batch of a pass is a full one."""

RECOMMENDED = replace(
    PUBLISHED, steps=10_000, warmup=100, schedule="cosine", precision="bf16", dropping=0.05, null=ZEROS,
)

# The first is the default, and drops.
PRESETS = {
    "recommended": RECOMMENDED,
    "published": PUBLISHED,
    "small card": replace(RECOMMENDED, batch=2, accumulation=8, gradient_checkpointing=True),
}
