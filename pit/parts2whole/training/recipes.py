"""How Parts2Whole is trained: its own settings and the presets.

Source of `published`: configs/train-sd15.yaml of the published code (github.com/huanngzh/Parts2Whole).
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from ...training.recipes import Recipe
from ..published import DECOUPLED

RESULT = DECOUPLED.published[0].path
"""Written last, beside the folders of the other three models."""
EVERYTHING, LORA, REFERENCE_LORA = "everything", "lora", "reference lora"
TRAINS = (EVERYTHING, LORA, REFERENCE_LORA)
PARTS_CHOICES = {"trains": TRAINS}
VALIDATED = 8
"""How many examples are validated with; more of those that are held out are not encoded."""


@dataclass(frozen=True)
class PartsRecipe(Recipe):
    """The settings for training Parts2Whole.

    Attributes:
        trains: "everything", which is all four models but for the outer layers of the denoising UNet; or
            "lora", a LoRA on the attention of both UNets; or "reference lora", on that of the reference UNet
            alone. Pose guider and decoupled attention are trained in any case.
        rank: of the LoRA's matrices, which are merged into the UNets in the end.
        reference_dropout: share of the pictures without their pose, another one without any reference, and
            share of the references that are left out one by one.
        prompt_dropout: share of the pictures without words and image tokens: what guidance needs.
    """

    trains: str = EVERYTHING
    rank: int = 64
    reference_dropout: float = 0.2
    prompt_dropout: float = 0.1

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        super().check()
        self.check_choices(PARTS_CHOICES)
        self.check_at_least_one("rank")
        self.check_shares("reference_dropout", "prompt_dropout")


PUBLISHED = PartsRecipe(
    steps=30_000, batch=8, learning_rate=2e-5, weight_decay=0.01, gradient_checkpointing=True,
    precision="bf16",
)
"""The published recipe, in bfloat16 where that has float16. Its faults are mended all the same."""

RECOMMENDED = replace(PUBLISHED, warmup=500, schedule="cosine", ema_decay=0.0)
ON_24_GB = replace(RECOMMENDED, batch=1, accumulation=8, optimizer="adamw_8bit")
ON_8_GB = replace(ON_24_GB, trains=LORA, learning_rate=1e-4, optimizer="adamw")

# The first is the default. Peak memory at 512 pixels: `benchmarks/parts2whole_memory.py`.
PRESETS = {
    "recommended": RECOMMENDED, "published": PUBLISHED, "24 GB card": ON_24_GB, "8 GB card": ON_8_GB,
}
