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
    """A trainer on the token cache in `tokens`, ready to run or to resume.

    Args:
        cpu: do not use a GPU.
        verify: check every file of the cache first.
    Raises:
        CacheError, WeightFileError, ValueError: what was given cannot be used, or does not match.
    """
    if recipe.lora_rank and not isinstance(start, Trained):
        raise ValueError(
            f"Expected a trained prior for low-rank changes (lora_rank {recipe.lora_rank}), got a training "
            "from scratch. Choose a prior to start from, or train all weights."
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
    """An untrained prior for the tokens of a cache, with the published initial weights.

    Raises:
        ValueError: the width cannot be split into these heads.
    """
    use_ref = cache.reference_rows.shape[1] > 0
    config = PriorConfig(
        cache.width, sizes.hidden_dim, sizes.num_layers, sizes.num_heads,
        feed_forward_width(sizes.hidden_dim), use_ref or None,
    )
    # Modules draw from the global generator, which is put back; no devices, as this is on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = build_prior(config)
        prior.reset_parameters()
    return prior, config


def trained_prior(path: Path, cache: TokenCache, num_heads: int | None = None) -> tuple[IPPrior, PriorConfig]:
    """The prior in a file, fp32, to train it further on the tokens of a cache.

    Raises:
        WeightFileError: not an IP-Prior, or a damaged one.
        ValueError: the prior is for tokens of another width, or just one of prior and cache has a reference
            slot.
    """
    config, state = read_prior(path, num_heads)
    if config.embedding_dim != cache.width:
        raise ValueError(
            f"{path}: expected a prior for tokens of width {cache.width}, as in the cache {cache.folder}, "
            f"got one for width {config.embedding_dim}. Start from a prior of the same IP-Adapter, or from "
            "scratch."
        )
    # The slots' places tell the prior what is in them: with a reference in front, all parts are elsewhere.
    with_reference = cache.reference_rows.shape[1] > 0
    if config.use_ref is not None and config.use_ref != with_reference:
        has = {True: "a reference slot", False: "no reference slot"}
        raise ValueError(
            f"{path}: expected a prior trained with {has[with_reference]}, like the cache {cache.folder}, "
            f"got one with {has[config.use_ref]}. Encode the dataset with references set to "
            f"{int(config.use_ref)}, or start from scratch."
        )
    prior = build_prior(config)
    # Files may be in fp16, which would round most steps of a training away.
    prior.load_state_dict({key: value.float() for key, value in state.items()})
    return prior, replace(config, use_ref=with_reference or None)
