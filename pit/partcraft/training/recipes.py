"""How part words are trained: their own settings and the presets.

Source of `published`: PartCraft (github.com/kamwoh/partcraft), its training scripts, and the published words,
which have one projection.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from ...training.recipes import Recipe
from ..attention_maps import LEVEL
from ..loss import PRESENT
from ..loss import PUBLISHED as PUBLISHED_FORM

RESULT = "part_words.safetensors"
MOST_PROJECTIONS = 16
PART_CHOICES = {"attention_form": (PUBLISHED_FORM, PRESENT)}


@dataclass(frozen=True)
class PartRecipe(Recipe):
    """The settings for training part words.

    Attributes:
        rank: of the LoRA's matrices.
        projections: linear layers behind the table of words; 0 learns each word by itself, as textual
            inversion (arXiv 2208.01618) does.
        attention_weight: of the attention loss, which makes each word look at its part; 0 leaves it out.
        attention_form: "published", or "present" without its constant for parts that the text lacks.
        map_level: how much smaller than the latent the maps of attention are.
        min_snr_gamma: cap on the weight of low noise, after Min-SNR (arXiv 2303.09556); 0 = no weighting.
        noise_offset: share of noise that is constant over each channel.
        templates: share of texts such as "a photo of a ..."; the others are part words alone.
        shuffle: put the part words of a text in a random order.
        dropping: share of texts that lose some of their part words.
        kept: how many words these keep; 0 = half of them.
        masked: learn only from where the parts are that the text names.
        flips: mirror half of the pictures, with the masks of their parts.
        class_name: what stands behind the part words, such as "bird"; "" = nothing.
    """

    rank: int = 4
    projections: int = 1
    attention_weight: float = 0.01
    attention_form: str = PUBLISHED_FORM
    map_level: int = LEVEL
    min_snr_gamma: float = 5.0
    noise_offset: float = 0.0
    templates: float = 0.5
    shuffle: bool = True
    dropping: float = 0.0
    kept: int = 0
    masked: bool = False
    flips: bool = False
    class_name: str = ""

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        super().check()
        self.check_choices(PART_CHOICES)
        self.check_at_least_one("rank", "map_level")
        self.check_shares("templates", "dropping")
        self.check_from_zero("attention_weight", "min_snr_gamma", "noise_offset", "kept")
        if not 0 <= self.projections <= MOST_PROJECTIONS:
            raise ValueError(
                f"Expected projections to lie between 0 and {MOST_PROJECTIONS}, got {self.projections}."
            )
        if self.map_level & (self.map_level - 1):
            raise ValueError(f"Expected map_level to be a power of 2, got {self.map_level}.")


PUBLISHED = PartRecipe(steps=74_900, batch=2, accumulation=4, learning_rate=1e-4, weight_decay=0.01)
"""The published recipe for the birds, of 100 epochs. Its faults are mended all the same: masks are worked out
once, and the last state of a stopped run is kept."""

RECOMMENDED = replace(
    PUBLISHED, steps=2000, warmup=50, precision="bf16", attention_form=PRESENT, dropping=0.5, flips=True,
)

# All make 8 samples a step. The first is the default.
PRESETS = {
    "recommended": RECOMMENDED,
    "small card": replace(RECOMMENDED, batch=1, accumulation=8, gradient_checkpointing=True),
    "published": PUBLISHED,
    # With the weight that the published script for SDXL has.
    "published for SDXL": replace(PUBLISHED, attention_weight=0.1),
    # To compare with.
    "without attention loss": replace(RECOMMENDED, attention_weight=0.0),
    "without projection": replace(RECOMMENDED, projections=0),
}
