"""Low-rank training of the IP-Prior, for sets too small to move all weights: by peft, merged at the end."""
from __future__ import annotations

import copy

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ..prior import IPPrior

# All layers that the tokens go through. The modulations depend on the time alone and stay as they are.
TARGETS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


def add_low_rank(prior: IPPrior, rank: int, seed: int) -> PeftModel:
    """Freeze a prior and add trainable products of this rank to its attention and feed-forward layers.

    LoRA: arXiv 2106.09685, with alpha = rank and the second factor zero, so that nothing changes at first.
    """
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), init_lora_weights="gaussian")
    # peft draws from the global generator, which is put back afterwards; no devices, as this is on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(prior, settings)


def merged(model: PeftModel) -> IPPrior:
    """A copy of the prior with the products added to its weights."""
    # A copy, because merging works in place and the training continues after a checkpoint.
    return copy.deepcopy(model).merge_and_unload()
