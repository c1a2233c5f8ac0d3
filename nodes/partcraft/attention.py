"""Where a model looks at each part word while it samples, as masks and pictures."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.images import to_pil, to_tensor
from ...pit.messages import ShortError
from ...pit.partcraft.attention_maps import AttentionMaps, as_masks, map_grid, maps_of_words
from ...pit.partcraft.previews import highlighted
from ..bridge.feedback import say
from ..bridge.lora_patches import cross_attention
from .text import words_of_conditioning
from .types import CATEGORY, PartAttentionType

KEY = "part_attention"
# Saved graphs hold these options by name; how much smaller than the picture the maps are.
DETAILS = {"a 32nd, as published": 32, "a 16th": 16, "an 8th": 8}


class RecordedMaps:
    """The attention to part words during the last sampling with a model, as a running mean.

    Its functions are wrappers of the patcher: of a sampling, and of each call of the model.
    """

    def __init__(self, context: Tensor, words: dict[str, list[int]], level: int):
        """
        Args:
            context: the prompt `[1,T,C]` that the words stand in, by which its rows are recognized.
            level: how much smaller than the latent the maps are.
        """
        self.context, self.words, self.level = context, words, level
        self.maps: AttentionMaps | None = None
        self.images = 0
        self.rows: list[int] = []  # of the running call, those of the prompt
        self.count = 0  # of all rows of the running call

    def sampling(self, executor: WrapperExecutor, *given: Any, **named: Any) -> Tensor:
        """A wrapper of `CFGGuider.outer_sample`: each sampling begins anew."""
        self.maps = None
        try:
            return executor(*given, **named)
        finally:
            # They wait for the node that shows them, and must not keep memory of the device until then.
            if self.maps is not None and self.maps.total is not None:
                self.maps.total = self.maps.total.cpu()

    def call(
        self, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor | None, *more: Any, **named: Any,
    ) -> Tensor:
        """A wrapper of `BaseModel.apply_model`: which rows of the call are for the prompt."""
        self.rows, self.count = self._rows_of_prompt(c_crossattn, len(x)), len(x)
        grid, images = map_grid(*x.shape[-2:], self.level), len(self.rows)
        if images and (self.maps is None or (self.maps.grid, self.images) != (grid, images)):
            self.maps, self.images = AttentionMaps(grid), images
        try:
            return executor(x, t, c_concat, c_crossattn, *more, **named)
        finally:
            self.rows, self.count = [], 0

    def _rows_of_prompt(self, text: Tensor | None, count: int) -> list[int]:
        # ComfyUI repeats a shorter prompt beside a longer one, so that only its beginning is compared.
        length = self.context.shape[1]
        if text is None or len(text) != count or text.shape[1] < length:
            return []
        wanted = self.context[:1].to(text)
        return (text[:, :length] == wanted).flatten(1).all(dim=1).nonzero()[:, 0].tolist()

    def look(self, q: Tensor, k: Tensor, heads: int) -> None:
        """Take the map of a layer, of the rows that are for the prompt."""
        # Another pack's patch before the attention may have made other rows of them.
        if self.rows and len(q) == self.count and self.maps.wants(q.shape[1]):
            self.maps.add(q[self.rows].float(), k[self.rows].float(), heads)

    def places(self, width: int) -> list[list[int]]:
        """Where each word stands in a context of this width, which repeats the prompt."""
        length = self.context.shape[1]
        return [
            [place + start for start in range(0, width - length + 1, length) for place in own]
            for own in self.words.values()
        ]

    def found(self) -> Tensor:
        """The maps `[B,n,rows,columns]`. Raises ShortError if nothing has been sampled."""
        if self.maps is None:
            raise ShortError(
                "Part Attention Maps expected a sampling with the model of Part Attention and the prompt "
                "that it was given, got none. Connect both to the sampler, and its picture here."
            )
        maps = self.maps.mean()
        return maps_of_words(maps, self.places(maps.shape[-1])).cpu()


class Watching:
    """In the slot of a cross-attention: computes as before, and lets the maps look at queries and keys.

    It calls the patch that it found there. Packs that stack on a patch through its `add` (as IPAdapter_plus
    does) can do so here.
    """

    def __init__(self, maps: RecordedMaps, previous: Callable | None):
        self.maps, self.previous = maps, previous
        self.added: list[tuple[Callable, dict]] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        self.maps.look(q, k, extra_options["n_heads"])
        if self.previous:
            out = self.previous(q, k, v, extra_options)
        else:
            # The attention that ComfyUI has chosen for this machine, called as its own layers call it.
            out = optimized_attention(
                q, k, v, extra_options["n_heads"], attn_precision=extra_options["attn_precision"],
                transformer_options=extra_options,
            )
        sigmas = extra_options.get("sigmas")
        for callback, options in self.added:
            active = (sigmas[0] <= options["sigma_start"]) & (sigmas[0] >= options["sigma_end"])
            out = torch.where(active, out + callback(out, q, k, v, extra_options, **options), out)
        return out.to(q.dtype)

    def add(self, callback: Callable, **options: Any) -> None:
        """Let another pack add `callback(out, q, k, v, extra_options, **options)` between its own sigmas."""
        self.added.append((callback, options))

    # ComfyUI only sees the patch in the slot, so that its calls are passed on to the one below.
    def models(self) -> Sequence[ModelPatcher]:
        """The managed weights of the patch below."""
        return self.previous.models() if hasattr(self.previous, "models") else ()

    def to(self, device_or_dtype: torch.device | torch.dtype) -> Watching:
        """ComfyUI calls this before sampling and when it frees the model."""
        if hasattr(self.previous, "to"):
            self.previous = self.previous.to(device_or_dtype)
        return self

    def cleanup(self) -> None:
        """ComfyUI calls this after sampling."""
        if hasattr(self.previous, "cleanup"):
            self.previous.cleanup()


def watched_model(model: ModelPatcher, maps: RecordedMaps) -> ModelPatcher:
    """A clone of a model that records maps. Raises ValueError for another kind of model than a UNet."""
    layers = cross_attention(model)
    if not layers:
        raise ShortError(
            "Part Attention expected a UNet such as those of SD 1.5 and SDXL, got a model without "
            "cross-attention to a text. Connect the model of Apply PartCraft."
        )
    patched = model.clone()
    present = patched.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for layer in layers:
        block = (layer.block, layer.number)
        # ComfyUI looks for the narrower key first, so that ours would hide a patch of the whole block.
        previous = present.get((*block, layer.index), present.get(block))
        patched.set_model_attn2_replace(Watching(maps, previous), *block, layer.index)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, maps.sampling)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, maps.call)
    return patched


class PartAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PartAttention",
            display_name="Part Attention",
            category=CATEGORY,
            description=(
                "Lets a model record where it looks at each part word of a prompt while it samples. Only "
                "sampling with this model takes the time for it."
            ),
            search_aliases=["attention map", "daam", "cross attention", "part maps"],
            inputs=[
                io.Model.Input("model", tooltip="The model of Apply PartCraft."),
                io.Conditioning.Input(
                    "positive", tooltip="The prompt with part words, as the sampler gets it.",
                ),
                io.Combo.Input(
                    "size", options=list(DETAILS), default=next(iter(DETAILS)), optional=True, advanced=True,
                    tooltip="How large the maps are, as a share of the picture's sides: smaller pictures "
                            "need larger ones.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                PartAttentionType.Output(
                    display_name="attention", tooltip="For Part Attention Maps, behind the sampler.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, positive: list, size: str = next(iter(DETAILS))
    ) -> io.NodeOutput:
        # Maps cannot be larger than the latent, which is an 8th of the picture in SD 1.5 and SDXL.
        level = max(1, DETAILS[size] // model.model.latent_format.spacial_downscale_ratio)
        maps = RecordedMaps(*words_of_conditioning(positive, "Part Attention"), level)
        return io.NodeOutput(watched_model(model, maps), maps)


class PartAttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PartAttentionMaps",
            display_name="Part Attention Maps",
            category=CATEGORY,
            description="Shows where the model looked at each part word, as masks and over the pictures.",
            search_aliases=["attention map", "part masks", "daam"],
            has_intermediate_output=True,
            inputs=[
                PartAttentionType.Input("attention", tooltip="From Part Attention."),
                io.Image.Input("image", tooltip="The pictures that were sampled, from VAE Decode."),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks",
                    tooltip="A soft mask of each word, the brightest place 1: all words of the first picture "
                            "first.",
                ),
                io.Image.Output(display_name="pictures", tooltip="The same over the pictures."),
                io.String.Output(display_name="words", tooltip="The words in the order of the masks."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, attention: RecordedMaps, image: Tensor) -> io.NodeOutput:
        maps = attention.found()
        if len(maps) != len(image):
            raise ShortError(
                f"Part Attention Maps expected the {len(maps)} pictures that were sampled last, got "
                f"{len(image)}. Connect their VAE Decode; tiles and windows of a picture have no maps."
            )
        comfy.model_management.throw_exception_if_processing_interrupted()
        masks = as_masks(maps, *image.shape[1:3])
        shown = to_tensor([
            highlighted(picture, mask) for picture, own in zip(to_pil(image), masks, strict=True)
            for mask in own
        ])
        words = "\n".join(attention.words)
        say(cls, words)
        return io.NodeOutput(masks.flatten(0, 1), shown, words, ui=ui.PreviewImage(shown, cls=cls))
