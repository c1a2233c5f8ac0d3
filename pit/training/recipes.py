"""How anything here is trained: the settings that every training has, and where a run is kept.

What a task needs besides them is in the `recipes` of its own room.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CHOICES = {
    "precision": ("fp32", "bf16"),
    "optimizer": ("adamw", "schedule_free", "adamw_8bit", "adafactor"),
    "schedule": ("constant", "cosine"),
}

# The best learning rate falls with the width of a model (Tensor Programs V, arXiv 2203.03466). For an
# IP-Prior of width 192, where this gives 2 thousandths, 1000 steps of 32 with rates of 1, 2 and 4 thousandths
# reached validation losses of 0.977, 0.939 and 0.924.
RATE_TIMES_WIDTH = 0.4
FINE_TUNING_SHARE = 0.1


def rate_for_width(hidden_dim: int, fine_tuning: bool) -> float:
    """A peak learning rate for a transformer of this width; a tenth of it if it is trained already."""
    return (FINE_TUNING_SHARE if fine_tuning else 1.0) * RATE_TIMES_WIDTH / hidden_dim


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        steps: optimizer steps in total.
        batch: samples that each process takes at once.
        accumulation: how many batches make up one optimizer step.
        learning_rate: the peak; None = chosen by the task's own recipe.
        warmup: steps over which the learning rate rises from zero.
        schedule: "constant", or "cosine" down to zero.
        optimizer: "adamw" (fused), "schedule_free" (arXiv 2405.15682; needs the package schedulefree), or for
            small GPUs "adamw_8bit" (needs bitsandbytes) or "adafactor" (arXiv 1804.04235).
        weight_decay: share of the weights that is subtracted per step, times the learning rate.
        clip_norm: the largest norm of the gradient, beyond which it is scaled down; 0 = no limit.
        ema_decay: decay of the averaged weights that are written at the end; 0 = the last weights.
        precision: "fp32", or "bf16" for matrix products (weights and optimizer stay fp32).
        gradient_checkpointing: less memory for a third more work.
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
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        self.check_choices(CHOICES)
        self.check_at_least_one("steps", "batch", "accumulation")
        self.check_shares("ema_decay")
        self.check_from_zero("warmup", "weight_decay", "clip_norm")
        # Schedule-free replaces both: it returns an average of its own, and needs no decay toward the end.
        if self.optimizer == "schedule_free" and (self.ema_decay or self.schedule != "constant"):
            raise ValueError("schedule_free averages by itself: set ema_decay to 0 and schedule to constant.")
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"Expected learning_rate to be a number above 0, got {rate}.")

    def check_choices(self, choices: Mapping[str, tuple[str, ...]]) -> None:
        """Raise ValueError for a setting that is not among its options."""
        for name, options in choices.items():
            if getattr(self, name) not in options:
                listed = ", ".join(options)
                raise ValueError(f"Expected {name} to be one of {listed}, got {getattr(self, name)!r}.")

    def check_at_least_one(self, *names: str) -> None:
        """Raise ValueError for a count below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} to be at least 1, got {getattr(self, name)}.")

    def check_shares(self, *names: str) -> None:
        """Raise ValueError for a share outside of 0..1."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Expected {name} to lie between 0 and 1, got {getattr(self, name)}.")

    def check_from_zero(self, *names: str) -> None:
        """Raise ValueError for a number that is negative or not finite."""
        for name in names:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"Expected {name} to be a number of at least 0, got {getattr(self, name)}.")

    def rate_factor(self, step: int) -> float:
        """The share of the peak rate at a step, counted from 0."""
        # One more than the step: at a rate of zero, the first step would do nothing.
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "constant":
            return rise
        # Half a period of a cosine, from 1 at the end of the warmup to 0 after the last step.
        share = min(1.0, max(0, step - self.warmup) / max(1, self.steps - self.warmup))
        return rise * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class RunSettings:
    """Where a run is kept, and how often it saves.

    Attributes:
        folder: folder of the run, which resumes from the newest valid checkpoint in it.
        seed: decides the order of the samples and all noise.
        save_every, validate_every: in steps.
        keep: how many checkpoints are kept.
        started_from: SHA-256 of the file with the weights that the model starts from; "" = untrained.
        notes: further plain values for the metadata of the result.
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
