"""What the trainer needs to make part words: the denoising and the attention loss of a base that reads them.

PartCraft (arXiv 2407.04604), sections 3.2 and 3.3, and its trainers (github.com/kamwoh/partcraft).
"""
from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, autocast, nn
from torch.nn.functional import interpolate

from ...files.records import models_to_json
from ...training.denoising import min_snr_weights, noise_schedule, noised, seed_of
from ...training.held_out import split_by_name
from ...training.order import Batch, concept_at
from ...training.recipes import RunSettings
from ...training.validation import TIMES, Validation
from ..files import PartWords, save_part_words
from ..loss import attention_loss, covered, maps_in_texts
from .cache import PartCache, PartSample
from .painter import PartPainter, lora_of, prepare
from .pictures import FEW, as_masks
from .recipes import RESULT, PartRecipe
from .texts import Tokens, text_of

VALIDATED = 8


@dataclass(frozen=True)
class PartBatch(Batch):
    """The samples of one step; `PartPainter` describes the fields that are not listed here.

    Attributes:
        noisy: latents with noise; wanted: what the UNet is to predict from them; both `[B,C,h,w]`.
        weight: of each sample's denoising loss, `[B]`.
        labels: the part of each place, `[B,g,g]`.
    """

    noisy: Tensor
    wanted: Tensor
    weight: Tensor
    timesteps: Tensor
    ids: Tensor
    codes: Tensor
    time_ids: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Row:
    """What is random in a sample: whether it is mirrored, its timestep, the seed of its noise, its text."""

    mirrored: bool
    time: int
    noise: int
    text: random.Random


class PartTask:
    """Part words in training, for `Trainer`.

    Attributes:
        model: the frozen base with mapper and LoRA, which alone are trained, in fp32.
        rate: the peak learning rate.
    """

    result = RESULT
    others: tuple[str, ...] = ()
    thrifty_preset = "small card"

    def __init__(
        self, painter: PartPainter, tokens: Tokens, cache: PartCache, recipe: PartRecipe,
        settings: RunSettings, schedule: DDPMScheduler | None = None,
    ):
        """
        Args:
            painter: the weights to start from; changed in place.
            schedule: the noise of the base's training, by default Stable Diffusion's.
        """
        self.tokens, self.cache, self.recipe, self.seed = tokens, cache, recipe, settings.seed
        self.schedule = noise_schedule() if schedule is None else schedule
        self.rate = recipe.learning_rate or PartRecipe.learning_rate
        self.split = split_by_name(cache.names)
        self.model: nn.Module = prepare(painter, recipe, self.seed)

    def draw(self, step: int, rows: range, total: int) -> PartBatch:
        """The samples numbered `rows` out of the `total` of a step: a function of the seed and the step."""
        samples, codes, drawn = [], [], []
        for row in rows:
            # One generator per row, so that a row is the same whichever process or batch it falls to, and a
            # resumed run draws what an uninterrupted one would.
            rng = random.Random(f"{self.seed}/{step}/{row}")
            index = concept_at(self.split.training, self.seed, step * total + row)
            sample = self.cache.read(index, rng.randrange(len(self.cache.files[index])))
            samples.append(sample)
            codes.append(self.cache.codes(index, sample))
            mirrored = rng.random() < 0.5 and self.recipe.flips
            time = rng.randrange(self.schedule.config.num_train_timesteps)
            drawn.append(Row(mirrored, time, rng.getrandbits(63), rng))
        return self.batch(samples, codes, drawn, self.recipe.noise_offset)

    def batch(
        self, samples: Sequence[PartSample], codes: Sequence[Tensor], rows: Sequence[Row],
        offset: float = 0.0,
    ) -> PartBatch:
        """A batch of samples with the codes of their parts; everything random in one comes from its row."""
        latents, time_ids, labels = zip(
            *(sample.shown(row.mirrored) for sample, row in zip(samples, rows, strict=True)), strict=True
        )
        noisy = noised(
            self.schedule, latents, [row.time for row in rows], [row.noise for row in rows], offset
        )
        count = self.cache.coding.count
        texts = [
            text_of((own != count).nonzero().flatten().tolist(), self.recipe, row.text)
            for own, row in zip(codes, rows, strict=True)
        ]
        return PartBatch(
            **noisy._asdict(), ids=torch.stack([self.tokens.ids(text) for text in texts]),
            weight=min_snr_weights(self.schedule, noisy.timesteps, self.recipe.min_snr_gamma),
            codes=torch.stack(list(codes)), time_ids=torch.stack(time_ids), labels=torch.stack(labels),
        )

    def losses(self, model: nn.Module, batch: PartBatch) -> Tensor:
        """The denoising loss of each sample plus its share of the attention loss, `[B]`."""
        denoising, attention = self.both_losses(model, batch)
        return denoising + self.recipe.attention_weight * attention

    def both_losses(self, model: nn.Module, batch: PartBatch) -> tuple[Tensor, Tensor]:
        """The denoising and the attention loss of each sample, `[B]` each; zeros where nobody asks for it."""
        recipe = self.recipe
        predicted, maps = model(
            batch.noisy, batch.timesteps, batch.ids, batch.codes, batch.time_ids,
            looking=recipe.attention_weight > 0,
        )
        masks = as_masks(batch.labels, batch.codes.shape[1])
        errors = (predicted.float() - batch.wanted).square().mean(dim=1)
        if recipe.masked:
            denoising = mean_where(errors, self.named_places(batch.ids, masks))
        else:
            denoising = errors.mean(dim=(1, 2))
        attention = torch.zeros_like(denoising)
        if maps is not None:
            # Autocast refuses this loss; each sample by itself, so that no sample depends on the others.
            with autocast(maps.device.type, enabled=False):
                found, there = maps_in_texts(maps.float(), batch.ids[:, 0], self.tokens.words)
                each = zip(found.split(1), there.split(1), masks.split(1), strict=True)
                attention = torch.stack([attention_loss(*own, recipe.attention_form) for own in each])
        return denoising * batch.weight, attention

    def named_places(self, ids: Tensor, masks: Tensor) -> Tensor:
        """Where the parts are that the texts name, `[B,h,w]`."""
        words = torch.tensor(self.tokens.words, device=ids.device)
        return covered(masks, (ids[:, 0, :, None] == words).any(dim=1))

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """The loss of pictures that are held out, at fixed times with fixed noise and texts."""
        # By the picture's name and the time: adding pictures does not change the losses of the others.
        by_time = []
        for t in TIMES:
            losses = []
            for index in self.split.validated[:VALIDATED].tolist():
                seed, sample = seed_of(f"{self.cache.names[index]}/{t}"), self.cache.read(index)
                row = Row(False, int(t * self.schedule.config.num_train_timesteps), seed, random.Random(seed))
                batch = self.batch([sample], [self.cache.codes(index, sample)], [row])
                losses.append(self.losses(model, batch.to(device)))
            by_time.append(torch.cat(losses).mean().item())
        return Validation(sum(by_time) / len(by_time), tuple(by_time))

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to resume, besides what the trainer itself compares."""
        # Shapes only: `started_from` of the settings stands for the weights of the base.
        shapes = {name: list(value.shape) for name, value in self.model.named_parameters()}
        sizes = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
        models = models_to_json(self.cache.models)
        return {"model": {"weights": sizes}, "dataset": self.cache.fingerprint, "models": models}

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the words with their names and the LoRA, as Load PartCraft reads them."""
        words = PartWords(model.mapper, self.cache.coding.vocabulary, lora_of(model), path.name)
        save_part_words(path, words, metadata)

    def about(self) -> str:
        """What the training uses, in words."""
        count = sum(value.numel() for value in self.model.parameters() if value.requires_grad)
        few = "" if len(self.cache.names) >= FEW else ", which is few: words become reliable with 100 or more"
        return f"{self.split.about('pictures')}, {count:,} weights{few}"


def mean_where(errors: Tensor, places: Tensor) -> Tensor:
    """The mean of `[B,h,w]` over some places `[B,g,g]`, each 0 or 1, `[B]`; 0 where there is none."""
    weights = interpolate(places[:, None].to(errors.dtype), errors.shape[1:], mode="nearest")[:, 0]
    return (errors * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2)).clamp(min=1)
