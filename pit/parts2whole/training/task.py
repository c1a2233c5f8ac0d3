"""What the trainer needs to train Parts2Whole: the published loss, on samples that are encoded already."""
from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...files.records import models_to_json
from ...training.denoising import noised, seed_of
from ...training.held_out import split_by_name
from ...training.order import concept_at
from ...training.recipes import RunSettings
from ...training.validation import TIMES, Validation
from .cache import EncodedExample, PartsCache, Sample
from .learned import POSE_FOLDER, UNET_FOLDERS, prepare, write_parts
from .recipes import RESULT, VALIDATED, PartsRecipe
from .step import Drops, Kept, PartsBatch, WholeModel, training_schedule

LATENT_SCALE = 0.18215
"""Of Stable Diffusion 1.5: its VAE's latents become as wide as noise."""


class Row(NamedTuple):
    """What is random in a sample: its timestep, the seed of its noise, and what of it is given."""

    time: int
    noise: int
    kept: Kept


class PartsTask:
    """Parts2Whole in training, for `Trainer`.

    Attributes:
        model: all four models; what is trained of them is in fp32.
        rate: the peak learning rate.
        shown: the examples to validate with.
    """

    result = RESULT
    others: tuple[str, ...] = (*UNET_FOLDERS, POSE_FOLDER)
    thrifty_preset = "8 GB card"

    def __init__(
        self, model: WholeModel, cache: PartsCache, recipe: PartsRecipe, settings: RunSettings,
        latent_scale: float = LATENT_SCALE,
    ):
        """
        Args:
            model: the weights to start from; changed in place.
            latent_scale: what the UNets' latents are of those of the VAE.
        """
        self.cache, self.recipe, self.seed, self.latent_scale = cache, recipe, settings.seed, latent_scale
        self.schedule = training_schedule()
        self.drops = Drops(recipe.reference_dropout, recipe.prompt_dropout)
        self.rate = recipe.learning_rate or PartsRecipe.learning_rate
        self.model: nn.Module = prepare(model, recipe, self.seed)
        split = split_by_name([example.name for example in cache.examples])
        if cache.held_out:
            self.training = torch.arange(len(cache.examples))
            self.shown = cache.held_out[:VALIDATED]
        else:
            self.training = split.training
            self.shown = tuple(cache.examples[number] for number in split.validated[:VALIDATED].tolist())

    def draw(self, step: int, rows: range, total: int) -> PartsBatch:
        """The samples numbered `rows` out of the `total` of a step: a function of the seed and the step."""
        samples, random_rows = [], []
        for row in rows:
            # One generator per row, so that a row is the same whichever process or batch it falls to, and a
            # resumed run draws what an uninterrupted one would.
            rng = random.Random(f"{self.seed}/{step}/{row}")
            example = self.cache.examples[concept_at(self.training, self.seed, step * total + row)]
            count = len(example.parts)
            variants = [rng.randrange(len(example.target)) for _ in range(1 + count)]
            samples.append(self.cache.read(example, variants))
            time = rng.randrange(self.schedule.config.num_train_timesteps)
            random_rows.append(Row(time, rng.getrandbits(63), self.drops.keep(count, rng)))
        return self.batch(samples, random_rows)

    def batch(self, samples: Sequence[Sample], rows: Sequence[Row]) -> PartsBatch:
        """A batch of samples; everything random in one comes from its row."""
        targets = [sample.latents * self.latent_scale for sample in samples]
        noisy = noised(self.schedule, targets, [row.time for row in rows], [row.noise for row in rows])
        # The whole sequence becomes zeros in training; sampling takes an empty prompt instead.
        told = torch.tensor([float(row.kept.prompt) for row in rows]).reshape(-1, 1, 1)
        kept = [list(row.kept.references) for row in rows]
        most = max(map(len, kept))
        # Of several processes, each must use all weights in each step, or the others wait for its gradients.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            most = max(most, 1)
        fields = {
            name: stacked([getattr(one, name)[few] for one, few in zip(samples, kept, strict=True)], most)
            for name in ("references", "labels", "masks")
        }
        fields["references"] = fields["references"] * self.latent_scale
        images = [sample.tokens for sample in samples]  # also of references that are left out, as published
        return PartsBatch(
            **noisy._asdict(), **fields, present=stacked([torch.ones(len(each)) for each in kept], most),
            text=torch.stack([sample.text for sample in samples]) * told,
            images=stacked(images, max(map(len, images))) * told,
            pose=torch.stack([sample.pose for sample in samples]),
            posed=torch.tensor([float(row.kept.pose) for row in rows]),
        )

    def losses(self, model: nn.Module, batch: PartsBatch) -> Tensor:
        """The mean squared error of each sample, `[B]`."""
        predicted = model(**{name: value for name, value in vars(batch).items() if name != "wanted"})
        # In float32: the mean of many small squares loses its digits in half precision.
        return (predicted.float() - batch.wanted.float()).square().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """The loss of examples that are held out, with all of their references, at fixed times and noise."""
        # Noise by the example's name and the time: adding examples does not change the losses of the others.
        steps = self.schedule.config.num_train_timesteps
        by_time = []
        for t in TIMES:
            losses = []
            for example in self.shown:
                row = Row(int(t * steps), seed_of(f"{example.name}/{t}"), everything(example))
                losses.append(self.losses(model, self.batch([self.cache.read(example)], [row]).to(device)))
            by_time.append(torch.cat(losses).mean().item())
        return Validation(sum(by_time) / len(by_time), tuple(by_time))

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to resume, besides what the trainer itself compares."""
        # Shapes only: `started_from` of the settings stands for the weights of all models.
        shapes = {name: list(value.shape) for name, value in self.model.named_parameters()}
        sizes = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
        models = models_to_json(self.cache.models)
        return {"model": {"weights": sizes}, "dataset": self.cache.fingerprint, "models": models}

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the four models in the published layout; `path` is that of the decoupled attention."""
        write_parts(path.parent, model, metadata)

    def about(self) -> str:
        """What the training uses, in words."""
        count = sum(value.numel() for value in self.model.parameters() if value.requires_grad)
        held_out = len(self.cache.held_out) or len(self.cache.examples) - len(self.training)
        return f"{len(self.training)} examples to train on, {held_out} held out, {count:,} weights"


def everything(example: EncodedExample) -> Kept:
    """Nothing of an example is left out."""
    return Kept(True, tuple(range(len(example.parts))), True)


def stacked(each: Sequence[Tensor], count: int) -> Tensor:
    """Tensors of up to `count` rows as one, filled up with zeros."""
    filled = [functional.pad(one, (0, 0) * (one.ndim - 1) + (0, count - len(one))) for one in each]
    return torch.stack(filled)
