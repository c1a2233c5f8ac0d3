"""What the trainer needs to make an Embedding Optimizer: the denoising loss of an InstructPix2Pix."""
from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...files.records import models_to_json
from ...files.weights import write_state
from ...training.denoising import noise_schedule, noised, seed_of
from ...training.order import Batch, concept_at
from ...training.recipes import RunSettings
from ...training.validation import TIMES, Validation
from ..condition import BLANK, queries
from ..embedding_optimizer import NUM_HEADS, EmbeddingOptimizer
from .cache import EncodedTriplet, TripletCache
from .inserter import Inserter, learned_of_unet, prepare
from .recipes import ATTENTION, RESULT, InsertionRecipe

LATENT_SCALE = 0.18215
"""Of Stable Diffusion 1.5: its VAE's latents become as wide as noise."""
VALIDATED = 8
HELD_OUT_FROM, HELD_OUT_SHARE, HELD_OUT_MOST = 20, 0.05, 64


@dataclass(frozen=True)
class InsertionBatch(Batch):
    """The samples of one step; `Inserter` describes the fields that are not listed here.

    Attributes:
        noisy: latents of targets with noise; wanted: that noise; both `[B, C, h, w]`.
    """

    noisy: Tensor
    wanted: Tensor
    timesteps: Tensor
    scene: Tensor
    tokens: Tensor
    query: Tensor
    blank: Tensor | None = None
    blank_query: Tensor | None = None
    chances: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """What is random in a sample.

    Attributes:
        time: its timestep.
        noise, query, blank_query: seeds.
        chance: decides what is dropped, 0..1; None = nothing.
    """

    time: int
    noise: int
    query: int
    blank_query: int = 0
    chance: float | None = None


def split(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Numbers of the triplets to train on, and of those held out; none of fewer than 20.

    By hashes of their names, so that more triplets move few of the others from one set to the other.
    """
    order = sorted(range(len(names)), key=lambda number: seed_of(names[number]))
    count = min(HELD_OUT_MOST, int(len(names) * HELD_OUT_SHARE)) if len(names) >= HELD_OUT_FROM else 0
    return sorted(order[count:]), sorted(order[:count])


class InsertionTask:
    """An Embedding Optimizer in training, for `Trainer`.

    Attributes:
        model: the optimizer, which is trained, with the UNet, of which little or nothing is; in fp32.
        rate: the peak learning rate.
    """

    result = RESULT
    others: tuple[str, ...] = (ATTENTION,)
    thrifty_preset = "small card"

    def __init__(
        self, model: Inserter, cache: TripletCache, recipe: InsertionRecipe, settings: RunSettings,
        schedule: DDPMScheduler | None = None, latent_scale: float = LATENT_SCALE,
    ):
        """
        Args:
            model: the weights to start from; changed in place.
            schedule: the noise of the UNet's training, by default Stable Diffusion's.
            latent_scale: what the UNet's latents are of those of the VAE.
        """
        self.cache, self.recipe, self.seed, self.latent_scale = cache, recipe, settings.seed, latent_scale
        self.schedule = noise_schedule() if schedule is None else schedule
        self.rate = recipe.learning_rate or InsertionRecipe.learning_rate
        self.width = model.optimizer.output_dim
        self.model: nn.Module = prepare(model, recipe, self.seed)
        training, self.held_out = split(cache.names)
        self.training = torch.tensor(training)

    def draw(self, step: int, rows: range, total: int) -> InsertionBatch:
        """The samples numbered `rows` out of the `total` of a step: a function of the seed and the step."""
        samples, random_rows = [], []
        for row in rows:
            # One generator per row, so that a row is the same whichever process or batch it falls to, and a
            # resumed run draws what an uninterrupted one would.
            rng = random.Random(f"{self.seed}/{step}/{row}")
            index = concept_at(self.training, self.seed, step * total + row)
            samples.append(self.cache.read(index, rng.randrange(len(self.cache.files[index]))))
            seeds = [rng.getrandbits(63) for _ in range(3)]
            time = rng.randrange(self.schedule.config.num_train_timesteps)
            # Always drawn: what is drawn after it does not depend on the settings.
            random_rows.append(Row(time, *seeds, rng.random()))
        return self.batch(samples, random_rows)

    def batch(self, samples: Sequence[EncodedTriplet], rows: Sequence[Row]) -> InsertionBatch:
        """A batch of samples; everything random in one comes from its row."""
        targets = [sample.target * self.latent_scale for sample in samples]
        noisy = noised(self.schedule, targets, [row.time for row in rows], [row.noise for row in rows])
        dropped = {}
        if self.recipe.dropping and all(row.chance is not None for row in rows):
            dropped["chances"] = torch.tensor([row.chance for row in rows])
            if self.recipe.null == BLANK:
                dropped["blank"] = self.cache.blank.expand(len(rows), -1, -1)
                dropped["blank_query"] = self.queries([row.blank_query for row in rows])
        return InsertionBatch(
            **noisy._asdict(), scene=torch.stack([sample.scene for sample in samples]),
            tokens=torch.stack([sample.tokens for sample in samples]),
            query=self.queries([row.query for row in rows]), **dropped,
        )

    def queries(self, seeds: Sequence[int]) -> Tensor:
        """One random query for each seed, `[B, 77, C]`."""
        return torch.cat([queries(seed, 1, self.width) for seed in seeds])

    def losses(self, model: nn.Module, batch: InsertionBatch) -> Tensor:
        """The mean squared error of each sample, `[B]`."""
        given = {name: value for name, value in vars(batch).items() if name != "wanted"}
        predicted = model(**given, dropping=self.recipe.dropping)
        return (predicted.float() - batch.wanted).square().mean(dim=(1, 2, 3))

    @property
    def shown(self) -> list[int]:
        """The triplets to validate with: of those held out, or if there are none, of all."""
        return (self.held_out or list(range(len(self.cache.names))))[:VALIDATED]

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """The loss of triplets that are held out, at fixed times with fixed noise."""
        # Noise by the triplet's name and the time: adding triplets does not change the losses of the others.
        steps = self.schedule.config.num_train_timesteps
        by_time = []
        for t in TIMES:
            losses = []
            for index in self.shown:
                seed = seed_of(f"{self.cache.names[index]}/{t}")
                batch = self.batch([self.cache.read(index)], [Row(int(t * steps), seed, seed)])
                losses.append(self.losses(model, batch.to(device)))
            by_time.append(torch.cat(losses).mean().item())
        return Validation(sum(by_time) / len(by_time), tuple(by_time))

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to resume, besides what the trainer itself compares."""
        # Shapes only: `started_from` of the settings stands for the weights of UNet and optimizer.
        shapes = {name: list(value.shape) for name, value in self.model.named_parameters()}
        sizes = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
        models = models_to_json(self.cache.models)
        return {"model": {"weights": sizes}, "dataset": self.cache.fingerprint, "models": models}

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the optimizer as the published files are, and beside it what was learned of the UNet."""
        learned = learned_of_unet(model)
        if learned:
            write_state(path.with_name(ATTENTION), learned, metadata)
        state = {key: value.detach().float().cpu() for key, value in model.optimizer.state_dict().items()}
        write_state(path, state, metadata | heads_of(model.optimizer))

    def about(self) -> str:
        """What the training uses, in words."""
        count = sum(value.numel() for value in self.model.parameters() if value.requires_grad)
        return (
            f"{len(self.training)} triplets to train on, {len(self.held_out)} held out, {count:,} weights"
        )


def heads_of(optimizer: nn.Module) -> dict[str, str]:
    """What the weights of an optimizer do not tell, for the metadata of its file."""
    if not isinstance(optimizer, EmbeddingOptimizer) or optimizer.attention_pooling.num_heads == NUM_HEADS:
        return {}
    return {"num_heads": str(optimizer.attention_pooling.num_heads)}
