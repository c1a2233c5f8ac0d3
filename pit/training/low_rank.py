"""Low-rank training, for sets too small to move all weights: by peft; merged, or kept as a LoRA."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import Tensor, nn

from ..files.lora import convert_lora


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


def inject_low_rank(
    model: nn.Module, targets: str | Sequence[str], rank: int, seed: int, alpha: float = 0.0
) -> nn.Module:
    """Add a LoRA in fp32 to layers of a model, in place.

    As usual, the first factor is normal with a deviation of 1 / rank and the second zero (peft's "gaussian").

    Args:
        targets: a pattern that matches the names of the layers, or what they end in.
        alpha: the products are scaled by alpha / rank; 0 = the rank.
    """
    settings = LoraConfig(
        r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian",
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    # peft draws from the global generator. It is seeded here and put back, since ComfyUI and other nodes use
    # it, too; no devices, as this happens on the CPU and asking for them would start CUDA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        injected = inject_adapter_in_model(settings, model)
    # peft gives new weights the type of the layer. bfloat16 has 8 bits of precision, which would round most
    # steps away.
    for parameter in injected.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return injected


def kohya_state(factors: Mapping[str, Tensor], alpha: float = 0.0) -> dict[str, Tensor]:
    """The factors of a LoRA in kohya's layout, with its alpha; 0 = the rank of each."""
    converted = convert_lora(factors)
    # Written even where the scale is 1, so that no loader has to assume it.
    return converted | {
        key.replace(".lora_down.weight", ".alpha"): torch.tensor(float(alpha or len(value)))
        for key, value in converted.items() if key.endswith(".lora_down.weight")
    }
