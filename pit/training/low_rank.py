"""Low-rank training, for sets too small to move all weights: by peft, merged at the end."""
from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn


def add_low_rank(model: nn.Module, targets: Sequence[str], rank: int, seed: int) -> PeftModel:
    """Freeze a model and add trainable products of this rank to those of its layers that are named.

    LoRA: arXiv 2106.09685, with alpha = rank and the second factor zero, so that nothing changes at first.

    Args:
        targets: what the names of the layers end in.
    """
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights="gaussian")
    # peft draws from the global generator, which is put back afterwards; no devices, as this is on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, settings)


def merged(model: PeftModel) -> nn.Module:
    """A copy of the model with the products added to its weights."""
    # A copy, because merging works in place and the training continues after a checkpoint.
    return copy.deepcopy(model).merge_and_unload()
