"""How an IP-Prior is trained: all settings in one place, the presets, what to start from, where to save.

Source of `published`: Piece it Together (github.com/eladrich/PiT), its trainer and its defaults.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

# The step that a model bears falls with its width (Tensor Programs V, arXiv 2203.03466). At a width of
# 192, 1000 steps of 32 at 1, 2 and 4 thousandths came to validation losses of 0.977, 0.939 and 0.924.
RATE_TIMES_WIDTH = 0.4
FINE_TUNING_SHARE = 0.1

CHOICES = {
    "precision": ("fp32", "bf16"),
    "optimizer": ("adamw", "schedule_free"),
    "schedule": ("constant", "cosine"),
    "lengths": ("batch", "sample"),
}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        steps: optimiser steps in all.
        batch: samples that each process takes at once.
        accumulation: how many batches make one optimiser step.
        learning_rate: None = by the width of the model, a tenth of that when it starts from a trained one.
        warmup: steps over which the learning rate rises from zero.
        schedule: "constant", or "cosine" down to zero.
        optimizer: "adamw" (fused), or "schedule_free" (arXiv 2405.15682; needs the package schedulefree).
        ema_decay: of the averaged weights that are written at the end; 0 = the last weights.
        precision: "fp32", or "bf16" for the products (weights and optimiser stay fp32).
        lengths: "batch" = all samples of a batch are shortened alike, as published; "sample" = each on its
            own, the slots that it does not have hidden by a mask.
        max_parts: most parts of one sample.
        empty_share: share of samples without any part, from which guidance learns what nothing looks like.
        shortened_share: share of batches (or samples) that keep only the first of their slots.
        keep_reference: whether a sample without parts still shows its reference, as published.
        time_mean: of the logit of t; above 0 the tokens that are learnt from are noisier, which teaches what
            the parts say rather than what the last details are.
        min_snr_gamma: cap of the weight of small times (`pit.flow.min_snr_weight`); 0 = no weighting.
        gradient_checkpointing: less memory, a third more work.
        lora_rank: train low-rank additions of this rank instead of all weights; 0 = all weights.
    """

    steps: int = 20_000
    batch: int = 64
    accumulation: int = 1
    learning_rate: float | None = 1e-5
    warmup: int = 0
    schedule: str = "constant"
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    precision: str = "fp32"
    lengths: str = "batch"
    max_parts: int = 7
    empty_share: float = 0.1
    shortened_share: float = 0.5
    keep_reference: bool = True
    time_mean: float = 0.0
    time_spread: float = 1.0
    min_snr_gamma: float = 0.0
    gradient_checkpointing: bool = False
    lora_rank: int = 0

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; there are {', '.join(options)}.")
        for name in ("steps", "batch", "accumulation", "max_parts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("empty_share", "shortened_share", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")
        for name in ("warmup", "weight_decay", "clip_norm", "min_snr_gamma", "lora_rank"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number from 0, got {getattr(self, name)}.")
        if self.optimizer == "schedule_free" and (self.ema_decay or self.schedule != "constant"):
            raise ValueError("schedule_free averages by itself: set ema_decay to 0 and schedule to constant.")
        if not math.isfinite(self.time_mean):
            raise ValueError(f"time_mean must be a number, got {self.time_mean}.")
        if not (math.isfinite(self.time_spread) and self.time_spread > 0):
            raise ValueError(f"time_spread must be a number above 0, got {self.time_spread}.")
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"learning_rate must be a number above 0, got {rate}.")

    def peak_rate(self, hidden_dim: int, fine_tuning: bool) -> float:
        """The highest learning rate for a model of this width."""
        if self.learning_rate is not None:
            return self.learning_rate
        share = FINE_TUNING_SHARE if fine_tuning and not self.lora_rank else 1.0
        return share * RATE_TIMES_WIDTH / hidden_dim

    def rate_factor(self, step: int) -> float:
        """Share of the peak rate at a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "constant":
            return rise
        share = min(1.0, max(0, step - self.warmup) / max(1, self.steps - self.warmup))
        return rise * 0.5 * (1 + math.cos(math.pi * share))


PUBLISHED = Recipe()
"""The published recipe, its faults mended: a target without parts is left out instead of becoming a white
sample that completes to white; the optimiser is resumed with the weights; the last state is saved; nothing is
encoded twice; fp32 products instead of fp16 ones, which need their loss scaled."""

RECOMMENDED = Recipe(
    learning_rate=None, warmup=200, schedule="cosine", weight_decay=0.01, ema_decay=0.999, precision="bf16",
    lengths="sample", keep_reference=False, time_mean=1.0,
)
"""What we would train with. Most comes of the noisier times: on the creatures' tokens a prior of 12 minutes
kept 96% of two given parts (32 free mixtures, 5500 steps of 32), with the published times 58% (64, 6500)."""

PRESETS = {
    "published": PUBLISHED,
    "recommended": RECOMMENDED,
    "8 GB card": replace(RECOMMENDED, batch=8, accumulation=8, gradient_checkpointing=True),
    "LoRA, few pictures": replace(RECOMMENDED, steps=2000, batch=16, warmup=50, lora_rank=16),
}


@dataclass(frozen=True)
class Sizes:
    """Of a new prior; as published unless told otherwise."""

    hidden_dim: int = 2048
    num_layers: int = 4
    num_heads: int = 32


@dataclass(frozen=True)
class Trained:
    """A file to start from; `num_heads` where neither it nor a cfg.yaml says."""

    path: Path
    num_heads: int | None = None


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives, and how often it saves.

    Attributes:
        folder: of the run; goes on from the newest valid checkpoint in it.
        keep: how many checkpoints stay.
        started_from: SHA-256 of the file with the weights that the model starts from; "" = untrained.
        notes: more plain values for the metadata of the result.
    """

    folder: Path
    seed: int = 0
    save_every: int = 500
    validate_every: int = 250
    keep: int = 2
    started_from: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def fine_tuning(self) -> bool:
        """Whether the model starts from trained weights, which need smaller steps."""
        return bool(self.started_from)
