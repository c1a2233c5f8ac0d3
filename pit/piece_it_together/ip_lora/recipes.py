"""How an IP-LoRA is trained: its own settings and the presets.

Source of `published`: Piece it Together (github.com/eladrich/PiT), the command in its README and the defaults
of its IP-LoRA trainer.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from ...training.recipes import Recipe

RESULT = "ip_lora.safetensors"


@dataclass(frozen=True)
class LoraRecipe(Recipe):
    """The settings for training an IP-LoRA.

    Attributes:
        rank: of the LoRA's matrices.
        alpha: their product is scaled by alpha / rank; 0 = the rank, for a scale of 1.
        on_adapter: train the IP-Adapter's own projections as well; only this pack applies that part.
        min_snr_gamma: cap on the weight of low noise, after Min-SNR (arXiv 2303.09556); 0 = no weighting.
        noise_offset: share of noise that is constant over each channel, for very dark and bright pictures.
        text_dropout: share of samples without their caption, which zeros replace, as at inference.
        image_dropout: share of samples with the tokens of an all-zero picture.
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
        """The factor of the LoRA's products."""
        return (self.alpha or self.rank) / self.rank


PUBLISHED = LoraRecipe(
    steps=2000, batch=2, accumulation=8, learning_rate=1e-4, weight_decay=0.01, rank=64,
)
"""The published recipe without its faults: pictures are brought to one size, captions have no stray letters,
what does not pair is named, validation does not need five samples, seed 0 counts, and the last state of a
stopped run is kept."""

# The published recipe never drops the words, so that guidance meets a branch without words that training has
# not shown.
RECOMMENDED = replace(
    PUBLISHED, warmup=100, schedule="cosine", precision="bf16", min_snr_gamma=5.0, text_dropout=0.05,
    image_dropout=0.05,
)

# All make 16 samples a step. Peak memory on SDXL at 1024 pixels: `benchmarks/lora_memory.py`.
PRESETS = {
    "published": PUBLISHED,
    "24 GB card": replace(RECOMMENDED, batch=1, accumulation=16),
    "12 GB card": replace(
        RECOMMENDED, batch=1, accumulation=16, gradient_checkpointing=True, optimizer="adafactor",
    ),
}
