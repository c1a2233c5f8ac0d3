"""Embedding Optimizer and UNet as one model, and what of the UNet is learned.

The UNet is diffusers' own, for training; ComfyUI's own model inserts, with the same weights.
"""
from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from ...training import unets
from ...training.low_rank import inject_low_rank, kohya_state
from ..condition import drop_conditions
from ..embedding_optimizer import CONTEXT_TOKENS, AnyOptimizer
from .recipes import LORA, PROJECTIONS, InsertionRecipe

LEARNED = ("to_k", "to_v")  # of the cross-attention: what reads the context


class Inserter(nn.Module):
    """An InstructPix2Pix that reads an object by its CLIP tokens."""

    def __init__(self, optimizer: AnyOptimizer, unet: UNet2DConditionModel):
        super().__init__()
        self.optimizer, self.unet = optimizer, unet

    def forward(
        self, noisy: Tensor, timesteps: Tensor, scene: Tensor, tokens: Tensor, query: Tensor,
        blank: Tensor | None = None, blank_query: Tensor | None = None, chances: Tensor | None = None,
        dropping: float = 0.0,
    ) -> Tensor:
        """The noise that the UNet predicts of noisy latents `[B, C, h, w]`, in their shape.

        Args:
            timesteps: `[B]`.
            scene: its latents, unscaled, `[B, C, h, w]`.
            tokens: of the object `[B, N, E]`.
            query: one or more, one behind the other, over whose contexts the mean is taken, `[B, 77 k, C]`.
            blank: tokens of no object `[B, N, E]` with their query `[B, 77, C]`; None = zeros as its context.
            chances: for each sample one in 0..1, `[B]`, that decides what of it is dropped; None = nothing.
            dropping: see `drop_conditions`.
        """
        context = self.optimizer(tokens, query).unflatten(1, (-1, CONTEXT_TOKENS)).mean(dim=1)
        if chances is not None:
            null = torch.zeros_like(context) if blank is None else self.optimizer(blank, blank_query)
            context, scene = drop_conditions(context, null, scene, chances, dropping)
        return self.predicted(noisy, timesteps, scene, context)

    def predicted(self, noisy: Tensor, timesteps: Tensor, scene: Tensor, context: Tensor) -> Tensor:
        """The same, for a context `[B, 77, C]`."""
        return self.unet(torch.cat([noisy, scene], dim=1), timesteps, context).sample


class Changed(nn.Module):
    """A frozen linear layer with a change of its weight that is learned, zero at first."""

    def __init__(self, linear: nn.Linear, share: float):
        super().__init__()
        self.linear, self.share = linear, share
        self.change = nn.Parameter(torch.zeros(linear.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        # Apart from the weight, which may be of half precision: it would round most steps away.
        return self.linear(x) + self.share * functional.linear(x.to(self.change.dtype), self.change)


def prepare(model: Inserter, recipe: InsertionRecipe, seed: int) -> nn.Module:
    """Freeze the UNet, but for what the recipe learns of it; the frozen weights take the recipe's type."""
    unet = model.unet.requires_grad_(False)
    if recipe.precision == "bf16":
        nn.Module.to(unet, torch.bfloat16)  # diffusers' own warns of what no such UNet has
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    model.optimizer.float().requires_grad_(True)
    if recipe.trains == PROJECTIONS:
        for name in learned_layers(unet):
            parent, _, last = name.rpartition(".")
            layer = unet.get_submodule(name)
            setattr(unet.get_submodule(parent), last, Changed(layer, recipe.projection_share))
    if recipe.trains == LORA:
        add_lora(unet, recipe, seed)
    return model


def learned_layers(unet: UNet2DConditionModel) -> list[str]:
    """The names of the key and value projections of the cross-attention."""
    return [
        name for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in LEARNED and ".attn2." in name
    ]


def add_lora(unet: UNet2DConditionModel, recipe: InsertionRecipe, seed: int) -> None:
    """Add a LoRA to these projections, of which the second factor is zero, in fp32."""
    inject_low_rank(unet, learned_layers(unet), recipe.rank, seed)


def learned_of_unet(model: Inserter) -> dict[str, Tensor]:
    """What was learned of the UNet, as ComfyUI's own LoRA loader reads it; nothing if that is nothing."""
    state = {}
    for name, module in model.unet.named_modules():
        if isinstance(module, Changed):
            state[f"lora_unet_{name.replace('.', '_')}.diff"] = module.share * module.change.detach().cpu()
    factors = {
        f"unet.{name}": value.detach().cpu()
        for name, value in model.unet.named_parameters() if ".lora_" in name
    }
    if not factors:
        return state
    return kohya_state(factors)


def unet_of_sizes(config: Mapping[str, object]) -> UNet2DConditionModel:
    """diffusers' UNet for an InstructPix2Pix, see `pit.training.unets.unet_of_sizes`.

    Raises:
        ValueError: the UNet is not of the kind of Stable Diffusion 1.5.
    """
    if not unets.like_sd15(config):
        raise ValueError(
            "Expected a UNet of the kind of Stable Diffusion 1.5, got one of another structure. Use an "
            "InstructPix2Pix of Stable Diffusion 1.5."
        )
    return unets.unet_of_sizes(config)
