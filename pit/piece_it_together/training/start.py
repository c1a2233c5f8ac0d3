"""What a training starts from: an untrained prior, or the weights of a trained one."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ...files.whole import sha256_of
from ...training.launch import data_parallel, for_device
from ...training.recipes import RunSettings
from ...training.trainer import Trainer
from ..prior import IPPrior, feed_forward_width
from ..prior_files import PriorConfig, read_prior
from .cache import TokenCache, open_cache
from .recipes import PriorRecipe, Sizes, Trained
from .task import PriorTask


def begin(
    tokens: Path, start: Sizes | Trained, recipe: PriorRecipe, settings: RunSettings, *, cpu: bool,
    verify: bool = False,
) -> Trainer:
    """A trainer on the token cache in `tokens`, ready to run or to go on.

    Args:
        cpu: do not use a GPU.
        verify: check every file of the cache first.
    Raises:
        CacheError, WeightFileError, ValueError: what was given cannot be used, or does not fit together.
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
        WeightFileError: no IP-Prior, or a damaged one.
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
