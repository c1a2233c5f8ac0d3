"""How an operator is trained: its own settings, the presets, and what to start from.

Source of `published`: pOps (github.com/pOpsPaper/pOps), its trainer and its configurations.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...training.recipes import Recipe, rate_for_width

RESULT = "operator.safetensors"


@dataclass(frozen=True)
class OperatorRecipe(Recipe):
    """The settings for training an operator.

    Attributes:
        learning_rate: None = by the width of the model, a tenth of that when it starts from a trained one.
        clip_strength: weight of the nearness to the sentence, in the mode "instruct".
        lora_rank: train low-rank changes of this rank instead of all weights; 0 = all weights.
    """

    clip_strength: float = 10.0
    lora_rank: int = 0

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        super().check()
        self.check_from_zero("clip_strength", "lora_rank")

    def peak_rate(self, hidden_dim: int, fine_tuning: bool) -> float:
        """The highest learning rate for a model of this width."""
        if self.learning_rate is not None:
            return self.learning_rate
        # Low-rank changes start at zero: there is nothing trained in them that large steps could destroy.
        return rate_for_width(hidden_dim, fine_tuning and not self.lora_rank)


PUBLISHED = OperatorRecipe(steps=1_000_000, batch=1)
"""The published recipe without its faults: batches of any size in every mode, conditions of instruct and
clothes left out for each sample and not for the whole batch, the statistics out of the optimizer, the
optimizer resumed with the weights, the last state saved, nothing encoded twice, products in fp32 instead of
fp16."""

RECOMMENDED = OperatorRecipe(
    steps=20_000, batch=64, learning_rate=None, warmup=200, schedule="cosine", weight_decay=0.01,
    ema_decay=0.999, precision="bf16",
)

# All weights of a published operator take 16 bytes each in fp32 with AdamW, 16.4 GB.
PRESETS = {
    "published": PUBLISHED,
    "recommended": RECOMMENDED,
    "16 GB card": replace(
        RECOMMENDED, batch=8, accumulation=8, gradient_checkpointing=True, optimizer="adafactor",
        ema_decay=0.0,
    ),
    "LoRA, few pictures": replace(RECOMMENDED, steps=2000, batch=16, warmup=50, lora_rank=16),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a new operator; the published ones by default."""

    hidden_dim: int = 2048
    num_layers: int = 20
    num_heads: int = 32


@dataclass(frozen=True)
class Trained:
    """What to start from: an operator or a prior, and the base with the statistics if it has none."""

    path: Path
    base: Path | None = None
    num_heads: int | None = None
