"""The two UNets of Parts2Whole, on diffusers' own class: one writes the references, one reads them."""
from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from ..ip_adapter.attention import ImageCrossAttention
from ..unet import multi_head_attention
from .attention import (
    KeysAndValues,
    attend_decoupled,
    attend_with_references,
    keys_and_values,
    padded_image_tokens,
)
from .references import ReferenceTokens, Written, masked

SELF, CROSS = ".attn1.processor", ".attn2.processor"


def blocks_of(unet: UNet2DConditionModel) -> list[str]:
    """The transformer blocks of a UNet by their names: down, up, then the middle, as files number them."""
    return [name.removesuffix(SELF) for name in unet.attn_processors if name.endswith(SELF)]


def widths_of(unet: UNet2DConditionModel) -> list[int]:
    """The width of each of these blocks."""
    return [unet.get_submodule(block).norm1.normalized_shape[0] for block in blocks_of(unet)]


class PosedConv(nn.Conv2d):
    """`conv_in` that adds the features of a pose, which come as further channels behind the latents."""

    def forward(self, latents: Tensor) -> Tensor:
        own, pose = latents[:, :self.in_channels], latents[:, self.in_channels:]
        return super().forward(own) + pose if pose.shape[1] else super().forward(own)


def empty_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """A denoising UNet on the meta device, from a config in diffusers' names."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        given = unet.conv_in
        unet.conv_in = PosedConv(
            given.in_channels, given.out_channels, given.kernel_size, padding=given.padding
        )
    return unet


def empty_reference_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """A reference UNet on the meta device: without the layers that follow the last one that is read."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    # Nothing reads what follows the first norm of the block that comes last.
    name = [each for each in blocks_of(unet) if each.startswith("up_blocks.")][-1]
    block, last = unet.get_submodule(name), unet.get_submodule(name.partition(".transformer_blocks")[0])
    for module in (block.attn1, block.attn2):
        module.to_q = module.to_k = module.to_v = nn.Identity()
        module.to_out = nn.ModuleList([nn.Identity(), nn.Identity()])
    block.norm2 = block.norm3 = block.ff = last.proj_out = nn.Identity()
    unet.conv_norm_out, unet.conv_out = None, nn.Identity()
    processors: dict[str, Plain] = {}
    for each in blocks_of(unet):
        processors[each + SELF] = Ending(each) if each == name else Writing(each)
        processors[each + CROSS] = Ending(each) if each == name else Plain()
    unet.set_attn_processor(processors)
    return unet


class Plain:
    """Attention as the UNet was trained, by the function that all of ours use."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, written: MutableMapping | None = None) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        return _projected(attn, multi_head_attention(q, k, v, attn.heads))


class Writing(Plain):
    """Self-attention that also writes what it is given: the features of its block."""

    def __init__(self, block: str):
        self.block = block

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, written: MutableMapping | None = None) -> Tensor:
        written[self.block] = hidden_states
        return super().__call__(attn, hidden_states)


class Ending(Writing):
    """The last self-attention writes, and neither it nor the cross-attention behind it computes anything."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, written: MutableMapping | None = None) -> Tensor:
        if encoder_hidden_states is None:
            written[self.block] = hidden_states
        return hidden_states


def _projected(attn: Attention, attended: Tensor) -> Tensor:
    out, dropout = attn.to_out
    return dropout(out(attended))


def write_references(
    unet: UNet2DConditionModel, latents: Tensor, labels: Tensor, masks: Tensor, rounded: bool = False
) -> dict[str, Written]:
    """What the reference UNet writes of all references, by block: in one batch unless they are rounded.

    Args:
        latents: of the pictures, without noise, `[R, 4, h, w]`.
        labels: embedded labels `[R, 77, D]`.
        masks: `[R, 1, 8 h, 8 w]` in 0..1; 1 is what is to be read.
        rounded: round to float16, as the published code does whatever the type of the run.
    """
    # One by one as well, as published: another batch changes the last bits of float32, which moves every
    # hundredth value to the next one of float16, and outputs of a tiny UNet by 3e-4.
    batches = [slice(row, row + 1) for row in range(len(latents))] if rounded else [slice(None)]
    parts: list[dict[str, Tensor]] = [{} for _ in batches]
    for rows, part in zip(batches, parts, strict=True):
        unet(latents[rows], 0, labels[rows], cross_attention_kwargs={"written": part})
    return {block: masked(torch.cat([part[block] for part in parts]), masks, rounded) for block in parts[0]}


class Denoiser(nn.Module):
    """The denoising UNet, with what Parts2Whole lets it read.

    Attributes:
        unet: from `empty_unet`; its attention is replaced here.
        decoupled: projections of the image tokens, one for each block in the order of `blocks_of`; without
            them image tokens simply follow the words.
    """

    def __init__(self, unet: UNet2DConditionModel, decoupled: ImageCrossAttention | None = None):
        super().__init__()
        self.unet, self.decoupled = unet, decoupled
        processors: dict[str, ReadingReferences | ReadingImages] = {}
        for number, block in enumerate(blocks_of(unet)):
            processors[block + SELF] = ReadingReferences(block)
            processors[block + CROSS] = ReadingImages(self, number)
        unet.set_attn_processor(processors)

    def forward(
        self, noisy: Tensor, timestep: Tensor | float, text: Tensor, images: Tensor | None = None,
        pose: Tensor | None = None, references: Mapping[str, KeysAndValues] | None = None,
        reads: Sequence[bool] | None = None, scale: Tensor | float = 1.0,
    ) -> Tensor:
        """The noise in noisy latents `[B, 4, h, w]`.

        Args:
            text: embedded prompts `[B, 77, D]`.
            images: an image token of each reference `[B, n, D]`, zeros in rows of a negative prompt.
            pose: features of the pose `[B, C, h, w]` or `[1, C, h, w]`.
            references: see `keys_and_values`.
            reads: for each row whether it reads the references; all do if None.
            scale: weight of the image tokens.
        """
        if pose is not None:
            noisy = torch.cat([noisy, pose.to(noisy).expand(len(noisy), -1, -1, -1)], 1)
        if images is not None and self.decoupled is None:
            text, images = torch.cat([text, images.to(text)], 1), None
        given = {
            "references": references, "reads": [True] * len(noisy) if reads is None else list(reads),
            "images": None if images is None else padded_image_tokens(images), "scale_of_images": scale,
        }
        return self.unet(noisy, timestep, text, cross_attention_kwargs=given).sample

    def keys_and_values(self, references: Mapping[str, ReferenceTokens]) -> dict[str, KeysAndValues]:
        """References as the layers of this UNet attend to them: once for all steps."""
        def projected(block: str) -> KeysAndValues:
            attn = self.unet.get_submodule(f"{block}.attn1")
            return keys_and_values(references[block], attn.to_k, attn.to_v)

        return {block: projected(block) for block in blocks_of(self.unet)}


class ReadingReferences:
    """Self-attention that also attends to the references of its block."""

    def __init__(self, block: str):
        self.block = block

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, references: Mapping[str, KeysAndValues] | None = None,
                 reads: Sequence[bool] = (), images: Tensor | None = None, scale_of_images: float = 1.0
                 ) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        if references is None:
            return _projected(attn, multi_head_attention(q, k, v, attn.heads))
        return _projected(attn, attend_with_references(q, k, v, attn.heads, references[self.block], reads))


class ReadingImages:
    """Cross-attention to the words, and decoupled from it to the image tokens."""

    def __init__(self, denoiser: Denoiser, number: int):
        # In a list, or the processor would be a module that holds the UNet which holds it.
        self.denoiser, self.number = [denoiser], number

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, references: Mapping[str, KeysAndValues] | None = None,
                 reads: Sequence[bool] = (), images: Tensor | None = None, scale_of_images: float = 1.0
                 ) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        if images is None:
            return _projected(attn, multi_head_attention(q, k, v, attn.heads))
        layer = self.denoiser[0].decoupled[self.number]
        return _projected(attn, attend_decoupled(layer, q, k, v, images, attn.heads, scale_of_images))
