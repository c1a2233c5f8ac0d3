"""What the trainer needs to make an IP-Prior: rectified flow on cached IP+ tokens.

Source: Piece it Together (arXiv 2503.10365), section 3, and its trainer (github.com/eladrich/PiT).
"""
from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...flow.path import min_snr_weight
from ...training.held_out import split_by_name
from ...training.low_rank import add_low_rank, merged
from ...training.recipes import RunSettings
from ...training.validation import Validation
from ..prior import IPPrior
from ..prior_files import PriorConfig, save_prior
from .batches import PriorBatch, draw_batch
from .cache import TokenCache
from .recipes import RESULT, PriorRecipe
from .validation import batch_loss, validate, validation_set

# All layers that the tokens go through. The modulations depend on the time alone and stay as they are.
LOW_RANK_LAYERS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


class PriorTask:
    """An IP-Prior in training, for `Trainer`.

    Attributes:
        model: fp32, with low-rank changes if the recipe has a rank; what requires gradients is trained.
        rate: the peak learning rate.
    """

    result = RESULT
    others = ("cfg.yaml",)
    thrifty_preset = "8 GB card"

    def __init__(
        self, prior: IPPrior, config: PriorConfig, cache: TokenCache, recipe: PriorRecipe,
        settings: RunSettings,
    ):
        """`prior` holds the weights to start from."""
        self.config, self.cache, self.recipe, self.seed = config, cache, recipe, settings.seed
        prior.gradient_checkpointing = recipe.gradient_checkpointing
        self.model: nn.Module = prior
        if recipe.lora_rank:
            self.model = add_low_rank(prior, LOW_RANK_LAYERS, recipe.lora_rank, self.seed)
        self.rate = recipe.peak_rate(config.hidden_dim, settings.fine_tuning)
        self.split = split_by_name(cache.names)
        self.validation = validation_set(cache, self.split.validated, recipe.max_parts)

    def draw(self, step: int, rows: range, total: int) -> PriorBatch:
        """The samples numbered `rows` out of the `total` of a step."""
        return draw_batch(self.cache, self.split.training, self.recipe, self.seed, step, rows, total)

    def losses(self, model: nn.Module, batch: PriorBatch) -> Tensor:
        """The loss of each sample, `[B]`."""
        losses = batch_loss(model, batch)
        if self.recipe.min_snr_gamma:
            losses = losses * min_snr_weight(batch.t, self.recipe.min_snr_gamma)
        return losses

    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        return validate(model, self.validation, device)

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to resume, besides what the trainer itself compares."""
        sizes = asdict(self.config)
        del sizes["adapter"]  # the dataset tells it
        return {"model": sizes, "dataset": self.cache.fingerprint}

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the trained prior, with what it was made from in the metadata."""
        made_of = {
            "dataset": self.cache.fingerprint,
            "image_encoder": self.cache.encoder.name,
            "ip_adapter": self.cache.adapter.name,
        }
        model = merged(model) if self.recipe.lora_rank else model
        config = replace(self.config, adapter=self.cache.adapter.stamp)
        save_prior(path, model.state_dict(), config, made_of | metadata)

    def about(self) -> str:
        """What the training uses, in words."""
        return self.split.about("concepts")
