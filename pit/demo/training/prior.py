"""Training the IP-Prior on the creatures' tokens, from a token cache, with the trainer of `pit.training`."""
from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ...ip_adapter.encoder import TokenEncoder, fingerprints
from ...piece_it_together.prior import IPPrior
from ...piece_it_together.prior_files import load_prior
from ...piece_it_together.training.cache import Sources
from ...piece_it_together.training.cache_writer import CacheWriter
from ...piece_it_together.training.recipes import RECOMMENDED, Sizes
from ...piece_it_together.training.start import begin
from ...training.recipes import RunSettings
from ..models.sizes import ENCODER_SIZE, PRIOR
from .data import NO_PART, PART_VIEWS
from .encoder import ImageTokens
from .stage import Run, run_trainer

# Of the rates 0.001, 0.002 and 0.004, the last led to the lowest validation loss, at a width of 192. Batches
# that are shortened as a whole are cheaper on a CPU than masked ones.
RECIPE = replace(
    RECOMMENDED, steps=9000, batch=32, learning_rate=4e-3, max_parts=PART_VIEWS, lengths="batch",
    shortened_share=1.0,
)
SIZES = Sizes(PRIOR["hidden_dim"], PRIOR["num_layers"], PRIOR["num_heads"])
SAVE_EVERY = 500


@dataclass(frozen=True)
class PriorData:
    """What the prior learns from.

    Attributes:
        tokens: of the creatures, `[N, 16, D]`.
        parts: tokens of their parts, `[N, 5, 16, D]`.
        part_kinds: `[N, 5]`, -1 = no part.
        empty, uncond: tokens of the white and of the all-zero picture, `[1, 16, D]`.
    """

    tokens: Tensor
    parts: Tensor
    part_kinds: np.ndarray
    empty: Tensor
    uncond: Tensor


def train_prior(run: Run, cache: Path) -> IPPrior:
    """Train on a token cache in the folder `prior` of the run, or resume what is there."""
    recipe = replace(RECIPE, precision=run.recipe_precision)
    settings = RunSettings(run.folder / "prior", run.seed, SAVE_EVERY, SAVE_EVERY)
    trainer = begin(cache, SIZES, recipe, settings, cpu=run.device.type == "cpu")
    return load_prior(run_trainer(trainer, "prior"))


def write_cache(folder: Path, data: PriorData, encoder: ImageTokens) -> Path:
    """Write the tokens of a data set as a token cache, replacing an older one; returns its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    models = fingerprints(TokenEncoder(
        "creature encoder", "creature resampler", ENCODER_SIZE, encoder.vision.features, encoder.resampler
    ))
    with CacheWriter(
        folder, width=data.tokens.shape[-1], variants=1, augmentation={}, encoder=models[0],
        adapter=models[1], empty=data.empty, uncond=data.uncond, shard_rows=65_536,
    ) as writer:
        for number, (target, parts, kinds) in enumerate(
            zip(data.tokens, data.parts, data.part_kinds, strict=True)
        ):
            given = [slot for slot in range(PART_VIEWS) if kinds[slot] != NO_PART]
            sources = Sources(f"creature {number:06d}", parts=tuple((str(slot), "") for slot in given))
            writer.add(sources, target, [parts[slot][None] for slot in given])
    return folder
