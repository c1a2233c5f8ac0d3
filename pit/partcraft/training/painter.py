"""A base with part words in training: mapper, text encoders and UNet as one model.

The UNet is diffusers' own, for training; ComfyUI's own model draws, with the same weights.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import CLIPTextModelWithProjection

from ...training.low_rank import inject_low_rank, kohya_state
from ..attention_maps import AttentionMaps, map_grid, watch
from ..mapper import TokenMapper, for_encoders, pooled_places, words_in
from .recipes import PartRecipe

ATTENTION = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"


class PartPainter(nn.Module):
    """A UNet that reads part words.

    Args:
        encoders: the text encoders of the base: one for SD 1.5, two for SDXL.
        word_ids: the token of each part.
        map_level: how much smaller than the latent the maps of attention are.
    Raises:
        ValueError: the text encoders are not those of the UNet.
    """

    def __init__(
        self, unet: UNet2DConditionModel, encoders: Sequence[CLIPTextModelWithProjection],
        mapper: TokenMapper, word_ids: Sequence[int], map_level: int,
    ):
        super().__init__()
        self.unet, self.encoders, self.mapper = unet, nn.ModuleList(encoders), mapper
        self.word_ids, self.map_level = list(word_ids), map_level
        self.hooks: list[RemovableHandle] = []
        width = unet.config.cross_attention_dim
        if sum(self.widths) != width:
            raise ValueError(
                f"Expected text encoders for a model that reads texts {width} numbers wide, got "
                f"{len(self.widths)} of {' and '.join(map(str, self.widths))}. Take those of its base."
            )
        for_encoders(torch.zeros(mapper.dim), self.widths)

    @property
    def widths(self) -> list[int]:
        """Of the text encoders."""
        return [encoder.config.hidden_size for encoder in self.encoders]

    def forward(
        self, noisy: Tensor, timesteps: Tensor, ids: Tensor, codes: Tensor, time_ids: Tensor,
        looking: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What the UNet predicts of noisy latents `[B,C,h,w]`, and where it looks at each token, `[B,r,c,T]`.

        Args:
            timesteps: `[B]`.
            ids: the text for each encoder, `[B,E,T]`.
            codes: of all parts, `[B,M]`.
            time_ids: the sizes that SDXL is told, `[B,6]`.
            looking: whether the maps are asked for; else they are None.
        """
        context, more = self.read(ids, codes, time_ids)
        self.stop_watching()
        if not looking:
            return self.unet(noisy, timesteps, context, added_cond_kwargs=more).sample, None
        maps = AttentionMaps(map_grid(*noisy.shape[2:], self.map_level))
        # Until the next step: the backward pass with gradient checkpointing needs the hooks as well.
        self.hooks = watch(self.unet, maps)
        predicted = self.unet(noisy, timesteps, context, added_cond_kwargs=more).sample
        return predicted, maps.take()

    def stop_watching(self) -> None:
        """Remove the hooks of the last step."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def read(self, ids: Tensor, codes: Tensor, time_ids: Tensor) -> tuple[Tensor, dict[str, Tensor] | None]:
        """The context `[B,T,C]` of texts with words for these codes, and what SDXL's UNet reads besides.

        As published: SD 1.5 reads the last states of its encoder, SDXL those before the last of both, and the
        pooled vector of the second where `pooled_places` says.
        """
        seen = []
        words = for_encoders(self.mapper(codes), self.widths)
        for encoder, row, own in zip(self.encoders, ids.unbind(1), words, strict=True):
            with words_in(encoder, row, own, self.word_ids):
                seen.append(encoder(row, output_hidden_states=True))
        if len(seen) == 1:
            return seen[0].last_hidden_state, None
        # From the last states, since the encoder itself looks for the end of the text.
        last = seen[1].last_hidden_state[torch.arange(len(ids)), pooled_places(ids[:, 1])]
        pooled = self.encoders[1].text_projection(last)
        context = torch.cat([each.hidden_states[-2] for each in seen], dim=-1)
        return context, {"text_embeds": pooled, "time_ids": time_ids}


def new_mapper(
    parts: int, codes: int, encoders: Sequence[CLIPTextModelWithProjection], projections: int, seed: int
) -> TokenMapper:
    """Part words to begin with, whose random weights follow from the seed."""
    dim = sum(encoder.config.hidden_size for encoder in encoders)
    # The global generator is put back, since others use it, too; asking for devices would start CUDA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mapper = TokenMapper(parts, codes, dim, projections)
    if not projections:
        # Words that nothing projects begin as large as CLIP's own, and not a hundred times as large.
        tables = [encoder.get_input_embeddings().weight for encoder in encoders]
        spread = torch.cat([table.float().std(dim=0) for table in tables]).mean() / 2**0.5
        with torch.no_grad():
            mapper.embedding.weight.mul_(spread)
            mapper.pe.mul_(spread)
    return mapper


def prepare(painter: PartPainter, recipe: PartRecipe, seed: int) -> PartPainter:
    """Freeze all but the mapper, and add a LoRA to the UNet, whose own weights take the recipe's type."""
    painter.requires_grad_(False)
    painter.encoders.float()  # a few words of half precision would round most steps away
    if recipe.precision == "bf16":
        nn.Module.to(painter.unet, torch.bfloat16)  # diffusers' own warns of what no such UNet has
    if recipe.gradient_checkpointing:
        painter.unet.enable_gradient_checkpointing()
    inject_low_rank(painter.unet, ATTENTION, recipe.rank, seed)
    painter.mapper.float().requires_grad_(True)
    return painter


def lora_of(painter: PartPainter) -> dict[str, Tensor]:
    """The LoRA in kohya's layout."""
    return kohya_state({
        f"unet.{name}": value.detach().float().cpu()
        for name, value in painter.unet.named_parameters() if ".lora_" in name
    })
