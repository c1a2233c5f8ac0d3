"""How an IP-LoRA is trained: its own settings and the presets.

Source of `published`: Piece it Together (github.com/eladrich/PiT), the command of its README and the defaults
of its IP-LoRA trainer.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from ...training.recipes import Recipe


@dataclass(frozen=True)
class LoraRecipe(Recipe):
    """The settings of a training of an IP-LoRA.

    Attributes:
        rank: of the additions.
        alpha: their scale is alpha / rank; 0 = the rank, so that it is 1.
        on_adapter: add them to the IP-Adapter's own projections as well, whose part only this pack applies.
        min_snr_gamma: cap of the weight of low noise, after Min-SNR (arXiv 2303.09556); 0 = no weighting.
        noise_offset: share of noise that is the same all over a channel, for very dark and bright pictures.
        text_dropout: share of samples without their caption; as at inference, zeros stand for it.
        image_dropout: share of samples whose tokens are those of an all-zero picture.
    """

    rank: int = 64
    alpha: float = 0.0
    on_adapter: bool = False
    min_snr_gamma: float = 0.0
    noise_offset: float = 0.0
    text_dropout: float = 0.0
    image_dropout: float = 0.0

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        super().check()
        self.check_at_least_one("rank")
        self.check_shares("text_dropout", "image_dropout")
        self.check_from_zero("alpha", "min_snr_gamma", "noise_offset")

    @property
    def scale(self) -> float:
        """Of the additions."""
        return (self.alpha or self.rank) / self.rank


PUBLISHED = LoraRecipe(
    steps=2000, batch=2, accumulation=8, learning_rate=1e-4, weight_decay=0.01, rank=64,
)
"""The published recipe, its faults mended: pictures are brought to one size, captions keep no stray letters,
what does not fit together is named, validation needs no five samples, seed 0 counts, and the last state of a
run that is stopped is kept."""

RECOMMENDED = replace(
    PUBLISHED, warmup=100, schedule="cosine", precision="bf16", min_snr_gamma=5.0, text_dropout=0.05,
    image_dropout=0.05,
)

# Peak memory on SDXL at 1024 pixels: `benchmarks/lora_memory.py`.
PRESETS = {
    "published": PUBLISHED,
    "24 GB card": replace(RECOMMENDED, batch=1, accumulation=16),
    "12 GB card": replace(
        RECOMMENDED, batch=1, accumulation=16, gradient_checkpointing=True, optimizer="adafactor",
    ),
}
