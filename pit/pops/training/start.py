"""What a training starts from: an operator, the prior of Kandinsky 2.2, or untrained weights."""
from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import torch

from ...files.whole import sha256_of
from ...training.launch import data_parallel, for_device
from ...training.recipes import RunSettings
from ...training.trainer import Trainer
from ..files import STATISTICS, OperatorConfig, empty_operator, read_operator, weights_in
from ..prior import PriorTransformer
from .batches import Examples
from .recipes import OperatorRecipe, Sizes, Trained
from .task import OperatorTask

MOST_COUNTED = 4096  # examples: statistics of more would hardly differ
LEAST_DEVIATION = 1e-3


def begin(
    examples: Examples, start: Sizes | Trained, recipe: OperatorRecipe, settings: RunSettings, *, cpu: bool,
) -> Trainer:
    """A trainer on cached embeddings, ready to run or to resume.

    Args:
        cpu: do not use a GPU.
    Raises:
        WeightFileError, ValueError: what was given cannot be used, or does not match.
    """
    recipe.check()
    if recipe.lora_rank and not isinstance(start, Trained):
        raise ValueError(
            f"Expected a trained operator for low-rank changes (lora_rank {recipe.lora_rank}), got a "
            "training from scratch. Choose one to start from, or train all weights."
        )
    if isinstance(start, Trained):
        operator, config = trained_operator(start, examples)
        settings = replace(settings, started_from=stamp_of(start, operator))
    else:
        operator, config = new_operator(examples, start, settings.seed)
    accelerator = data_parallel(cpu)
    recipe = for_device(recipe, accelerator.device)
    task = OperatorTask(operator, config, examples, recipe, settings)
    return Trainer(task, recipe, settings, accelerator)


def stamp_of(start: Trained, operator: PriorTransformer) -> str:
    """What tells one start from another: the file, and the statistics, which may come from another file."""
    parts = [sha256_of(weights_in(start.path)).encode()]
    parts += [getattr(operator, key).detach().numpy().tobytes() for key in STATISTICS]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def trained_operator(start: Trained, examples: Examples) -> tuple[PriorTransformer, OperatorConfig]:
    """The operator in a file, fp32, to train it further.

    Raises:
        WeightFileError: it cannot be read.
        ValueError: it is for embeddings of another width.
    """
    file = read_operator(start.path, start.base, start.num_heads)
    if file.config.embedding_dim != examples.width:
        raise ValueError(
            f"{start.path}: expected an operator on embeddings of width {examples.width}, as the encoder "
            f"gives them, got one for width {file.config.embedding_dim}. Use the encoder that it was trained "
            "with (ViT-bigG for the published ones), or start from scratch."
        )
    # Not drawn at random first: that takes long for a billion weights.
    operator = empty_operator(file.config).to_empty(device="cpu")
    # Files may be in fp16, which would round most steps of a training away.
    operator.load_state_dict({key: value.float() for key, value in file.state.items()})
    return operator, file.config


def new_operator(
    examples: Examples, sizes: Sizes, seed: int
) -> tuple[PriorTransformer, OperatorConfig]:
    """An untrained operator, with the statistics of the targets that it is to learn.

    Raises:
        ValueError: the width cannot be split into these heads.
    """
    # Modules draw from the global generator, which is put back; no devices, as this is on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        operator = PriorTransformer(examples.width, sizes.hidden_dim, sizes.num_layers, sizes.num_heads)
    numbers = range(min(len(examples.names), MOST_COUNTED))
    targets = torch.stack([examples.draw(number, random.Random(number)).target for number in numbers]).float()
    operator.clip_mean.data.copy_(targets.mean(dim=0))
    operator.clip_std.data.copy_(targets.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION))
    config = OperatorConfig(
        examples.width, sizes.hidden_dim, sizes.num_layers, sizes.num_heads, 4 * sizes.hidden_dim,
        operator.num_slots,
    )
    return operator, config
