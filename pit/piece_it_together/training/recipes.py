"""How an IP-Prior is trained: its own settings, the presets, and what to start from.

Source of `published`: Piece it Together (github.com/eladrich/PiT), its trainer and its defaults.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from ...training.recipes import CHOICES, Recipe, rate_for_width

RESULT = "prior.safetensors"
PRIOR_CHOICES = CHOICES | {"lengths": ("batch", "sample")}


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """The settings for training an IP-Prior.

    Attributes:
        learning_rate: None = by the width of the model, a tenth of that when it starts from a trained one.
        lengths: "batch" = all samples of a batch are shortened alike, as published; "sample" = each by
            itself, with a mask over the slots that it does not have.
        max_parts: the most parts in one sample.
        empty_share: share of samples without any part, from which guidance learns its unconditional branch.
        shortened_share: share of batches (or samples) that keep only the first of their slots.
        keep_reference: whether a sample without parts still shows its reference, as published.
        time_mean: mean of the logit of t; above 0 the tokens are noisier, which teaches what the parts say
            rather than the last details.
        time_spread: standard deviation of the logit of t.
        min_snr_gamma: cap on the weight of small times (`pit.flow.path.min_snr_weight`); 0 = no weighting.
        lora_rank: train low-rank changes of this rank instead of all weights; 0 = all weights.
    """

    lengths: str = "batch"
    max_parts: int = 7
    empty_share: float = 0.1
    shortened_share: float = 0.5
    keep_reference: bool = True
    time_mean: float = 0.0
    time_spread: float = 1.0
    min_snr_gamma: float = 0.0
    lora_rank: int = 0

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        super().check()
        self.check_choices(PRIOR_CHOICES)
        self.check_at_least_one("max_parts")
        self.check_shares("empty_share", "shortened_share")
        self.check_from_zero("min_snr_gamma", "lora_rank")
        if not math.isfinite(self.time_mean):
            raise ValueError(f"Expected time_mean to be a finite number, got {self.time_mean}.")
        if not (math.isfinite(self.time_spread) and self.time_spread > 0):
            raise ValueError(f"Expected time_spread to be a number above 0, got {self.time_spread}.")

    def peak_rate(self, hidden_dim: int, fine_tuning: bool) -> float:
        """The highest learning rate for a model of this width."""
        if self.learning_rate is not None:
            return self.learning_rate
        # Low-rank changes start at zero: there is nothing trained in them that large steps could destroy.
        return rate_for_width(hidden_dim, fine_tuning and not self.lora_rank)


PUBLISHED = PriorRecipe()
"""The published recipe without its faults: a target without parts is left out instead of becoming a white
sample that completes to white; the optimizer is resumed with the weights; the last state is saved; nothing is
encoded twice; products are in fp32 instead of fp16, which needs loss scaling."""

RECOMMENDED = PriorRecipe(
    learning_rate=None, warmup=200, schedule="cosine", weight_decay=0.01, ema_decay=0.999, precision="bf16",
    lengths="sample", keep_reference=False, time_mean=1.0,
)
"""What we recommend. The noisier times matter most: on the creatures' tokens a prior trained for 12 minutes
kept 96% of two given parts (32 free mixtures, 5500 steps of 32), with the published times 58% (64, 6500)."""

PRESETS = {
    "published": PUBLISHED,
    "recommended": RECOMMENDED,
    "8 GB card": replace(RECOMMENDED, batch=8, accumulation=8, gradient_checkpointing=True),
    "LoRA, few pictures": replace(RECOMMENDED, steps=2000, batch=16, warmup=50, lora_rank=16),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a new prior; the published ones by default."""

    hidden_dim: int = 2048
    num_layers: int = 4
    num_heads: int = 32


@dataclass(frozen=True)
class Trained:
    """A file to start from; `num_heads` if neither the file nor a cfg.yaml says it."""

    path: Path
    num_heads: int | None = None
