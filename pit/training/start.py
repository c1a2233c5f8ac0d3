"""What a training starts from: an untrained prior, or the weights of a trained one."""
from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedType

from ..checkpoints import PriorConfig, read_prior
from ..precision import cpu_has_bf16
from ..prior import IPPrior, feed_forward_width
from .cache import TokenCache, open_cache
from .files import sha256_of
from .prior_recipes import PriorRecipe, Sizes, Trained
from .prior_task import PriorTask
from .recipes import Recipe, RunSettings
from .trainer import Trainer

R = TypeVar("R", bound=Recipe)


def begin(
    tokens: Path, start: Sizes | Trained, recipe: PriorRecipe, settings: RunSettings, *, cpu: bool,
    verify: bool = False,
) -> Trainer:
    """A trainer on the token cache in `tokens`, ready to run or to go on.

    Args:
        cpu: do not use a GPU.
        verify: check every file of the cache first.
    Raises:
        CacheError, CheckpointError, ValueError: what was given cannot be used, or does not fit together.
    """
    if recipe.lora_rank and not isinstance(start, Trained):
        raise ValueError(
            f"LoRA (lora_rank {recipe.lora_rank}) changes a trained prior a little, but the training starts "
            "from nothing. Choose a prior to start from, or train all weights."
        )
    cache = open_cache(tokens, verify=verify)
    if isinstance(start, Trained):
        prior, config = trained_prior(start.path, cache, start.num_heads)
        settings = replace(settings, started_from=sha256_of(start.path))
    else:
        prior, config = new_prior(cache, start, settings.seed)
    accelerator = data_parallel(cpu)
    recipe = for_device(recipe, accelerator.device)
    return Trainer(PriorTask(prior, config, cache, recipe, settings), recipe, settings, accelerator)


def for_device(recipe: R, device: torch.device) -> R:
    """The recipe, in float32 where it asks for bfloat16 of a CPU that has none; the log says so."""
    if recipe.precision != "bf16" or device.type != "cpu" or cpu_has_bf16():
        return recipe
    logging.warning("This processor has no bfloat16, which would take many times as long: training in fp32.")
    return replace(recipe, precision="fp32")


def data_parallel(cpu: bool) -> Accelerator:
    """One process, or several that each hold the whole model; what `accelerate config` says else is not used.

    Raises:
        ValueError: the processes were launched to share out the model.
    """
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    accelerator.gradient_accumulation_steps = 1
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ValueError(
            f"The processes were launched for {accelerator.distributed_type.value}, but each of them trains "
            "a whole IP-Prior. Launch with --multi_gpu."
        )
    return accelerator


def leave() -> None:
    """Take leave of the other processes, if there are any: one that merely ends may be aborted."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def build_prior(config: PriorConfig) -> IPPrior:
    """An IP-Prior of these sizes, fp32, with torch's initial weights."""
    return IPPrior(config.embedding_dim, config.hidden_dim, config.num_layers, config.num_heads,
                   feed_forward_dim=config.feed_forward_dim)


def new_prior(cache: TokenCache, sizes: Sizes, seed: int) -> tuple[IPPrior, PriorConfig]:
    """An untrained prior for the tokens of a cache, with the published start.

    Raises:
        ValueError: the width cannot be split into these heads.
    """
    use_ref = cache.reference_rows.shape[1] > 0
    config = PriorConfig(
        cache.width, sizes.hidden_dim, sizes.num_layers, sizes.num_heads,
        feed_forward_width(sizes.hidden_dim), use_ref or None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = build_prior(config)
        prior.reset_parameters()
    return prior, config


def trained_prior(path: Path, cache: TokenCache, num_heads: int | None = None) -> tuple[IPPrior, PriorConfig]:
    """The prior of a file, fp32, to go on training with the tokens of a cache.

    Raises:
        CheckpointError: no IP-Prior, or a damaged one.
        ValueError: the prior works on tokens of another width, or knows a reference slot and the cache does
            not, or the other way round.
    """
    config, state = read_prior(path, num_heads)
    if config.embedding_dim != cache.width:
        raise ValueError(
            f"{path} works on tokens of width {config.embedding_dim}, the cache {cache.folder} holds tokens "
            f"of width {cache.width}. Start from a prior of the same IP-Adapter, or from nothing."
        )
    with_reference = cache.reference_rows.shape[1] > 0
    if config.use_ref is not None and config.use_ref != with_reference:
        has = {True: "a reference slot", False: "no reference slot"}
        raise ValueError(
            f"{path} was trained with {has[config.use_ref]}, the cache {cache.folder} was made with "
            f"{has[with_reference]}. Encode the dataset with references set to "
            f"{int(config.use_ref)}, or start from nothing."
        )
    prior = build_prior(config)
    prior.load_state_dict({key: value.float() for key, value in state.items()})
    return prior, replace(config, use_ref=with_reference or None)
