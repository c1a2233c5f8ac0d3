"""What the trainer needs to make an operator: a diffusion prior on cached image embeddings.

Source: pOps (arXiv 2406.01300), section 3, and its trainer (github.com/pOpsPaper/pOps).
"""
from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...files.records import models_to_json
from ...training.held_out import split_by_name
from ...training.low_rank import add_low_rank, merged
from ...training.recipes import RunSettings
from ...training.validation import TIMES, Validation
from ..files import STATISTICS, OperatorConfig, OperatorFile, save_operator
from ..prior import PriorTransformer
from ..sample import TRAINING_STEPS
from .batches import Examples, OperatorBatch, Statistics, batch_of, condition_of, draw_batch
from .recipes import RESULT, OperatorRecipe

LOW_RANK_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
TIMES_EACH, ROWS_AT_ONCE = 2, 64


class OperatorTask:
    """An operator in training, for `Trainer`.

    Attributes:
        model: fp32, with low-rank changes if the recipe has a rank; what requires gradients is trained.
        rate: the peak learning rate.
    """

    result = RESULT
    others: tuple[str, ...] = ()
    thrifty_preset = "16 GB card"

    def __init__(
        self, operator: PriorTransformer, config: OperatorConfig, examples: Examples, recipe: OperatorRecipe,
        settings: RunSettings,
    ):
        """`operator` holds the weights to start from; it is changed in place."""
        self.config, self.examples, self.recipe, self.seed = config, examples, recipe, settings.seed
        operator.gradient_checkpointing = recipe.gradient_checkpointing
        self.statistics = Statistics(*(getattr(operator, key).detach()[0].clone() for key in STATISTICS))
        self.model: nn.Module = operator.requires_grad_(True)
        if recipe.lora_rank:
            self.model = add_low_rank(operator, LOW_RANK_LAYERS, recipe.lora_rank, self.seed)
        # The space of the embeddings is not learned.
        operator.clip_mean.requires_grad_(False)
        operator.clip_std.requires_grad_(False)
        self.rate = recipe.peak_rate(config.hidden_dim, settings.fine_tuning)
        self.split = split_by_name(examples.names)

    def draw(self, step: int, rows: range, total: int) -> OperatorBatch:
        """The samples numbered `rows` out of the `total` of a step."""
        numbers = self.split.training
        return draw_batch(self.examples, numbers, self.statistics, self.seed, step, rows, total)

    def losses(self, model: nn.Module, batch: OperatorBatch) -> Tensor:
        """The loss of each sample, `[B]`: the squared error, and where words are learned, the way to them."""
        predicted = model(batch.noisy, batch.timesteps, batch.condition, batch.mask).float()
        losses = (predicted - batch.clean).square().mean(dim=1)
        if batch.sentences is None:
            return losses
        near = functional.cosine_similarity(self.statistics.raw(predicted), batch.sentences, dim=1)
        return losses + self.recipe.clip_strength * (1 - near)

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """The loss of the held-out examples, nothing left out, at fixed times with fixed noise."""
        times = self.validation_times()
        losses = [
            self.losses(model, self.validation_batch(times[first:first + ROWS_AT_ONCE]).to(device))
            for first in range(0, len(times), ROWS_AT_ONCE)
        ]
        found, at = torch.cat(losses).cpu(), torch.tensor([time for _, time in times])
        by_time = tuple(found[at == number].mean().item() for number in range(len(TIMES)))
        return Validation(found.mean().item(), by_time)

    def validation_times(self) -> list[tuple[int, int]]:
        """Every validated example at two of the times: pairs of their numbers."""
        # Half of the times apart, and one further for each example: all times are covered alike.
        return [
            (index, (number + repeat * len(TIMES) // TIMES_EACH) % len(TIMES))
            for number, index in enumerate(self.split.validated.tolist()) for repeat in range(TIMES_EACH)
        ]

    def validation_batch(self, pairs: list[tuple[int, int]]) -> OperatorBatch:
        """A batch in which all that is random depends on the name of the example and the time alone."""
        texts = [f"{self.examples.names[index]}/{TIMES[time]}" for index, time in pairs]
        samples = [
            self.examples.draw(index, random.Random(text))
            for (index, _), text in zip(pairs, texts, strict=True)
        ]
        conditions = [condition_of(each, [False] * len(each.slots), self.statistics) for each in samples]
        times = [int(TIMES[time] * TRAINING_STEPS) for _, time in pairs]
        # A text seeds by SHA-512: unlike hash(), the same in every process and version.
        seeds = [random.Random(f"noise/{text}").getrandbits(63) for text in texts]
        return batch_of(samples, conditions, times, seeds, self.statistics)

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to resume, besides what the trainer itself compares."""
        return {
            "model": asdict(self.config), "mode": self.examples.mode, "dataset": self.examples.fingerprint,
            "models": models_to_json(self.examples.models),
        }

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the operator, complete with its statistics, with what it was made from in the metadata."""
        model = merged(model) if self.recipe.lora_rank else model
        state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
        made_of = {"dataset": self.examples.fingerprint}
        save_operator(path, OperatorFile(self.config, state, self.examples.mode), made_of | metadata)

    def about(self) -> str:
        """What the training uses, in words."""
        return self.split.about(f"examples for {self.examples.mode}")
