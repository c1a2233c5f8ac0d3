"""From the picture of an object to the contexts that a model inserts it by."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...pit.cutouts import cut_out_part, mask_of_part
from ...pit.files.published import file_kind
from ...pit.images import to_pil, to_tensor
from ...pit.object_insertion.condition import (
    AS_PUBLISHED,
    BLANK,
    CROP,
    FITS,
    NULLS,
    PIXEL_SCALES,
    ZEROS,
    null_context,
    object_context,
    object_pictures,
    object_pixels,
)
from ...pit.object_insertion.embedding_optimizer import PENULTIMATE, PICTURE_TOKENS
from ...pit.object_insertion.files import read_embedding_optimizer
from ..bridge.feedback import progress_bar, say, told
from ..bridge.folders import ModelFiles
from ..bridge.loaders import FileNode
from ..bridge.memory import managed
from .types import CATEGORY, ManagedOptimizer, OptimizerType

FILES = ModelFiles("embedding_optimizer")
# Bounds the memory of an encoding, however many pictures there are, and lets Cancel in between.
PICTURES_AT_ONCE = 16
PUBLISHED_WIDTH = 1024
INVERTED = (
    "The mask covers what lies around the object, as the MASK of Load Image does for a picture with a "
    "transparent background, so it was inverted."
)


def load_optimizer(path: Path, name: str, nan_as_zero: bool = False) -> tuple[ManagedOptimizer, str]:
    """An Embedding Optimizer under ComfyUI's memory management, and what it is to people.

    Raises:
        WeightFileError: the file is none, or a damaged one.
    """
    file = read_embedding_optimizer(path, nan_as_zero)
    report = f"{name}: {file.variant}"
    if file.nan:
        report += f"\n{file.nan} of its values were NaN, and are 0 now"
    return ManagedOptimizer(name, managed(file.build, file.state)), report


def check_encoder(clip_vision, optimizer: ManagedOptimizer) -> None:
    """Raise ValueError if the Embedding Optimizer was not made for this image encoder."""
    found, width = clip_vision.model_type, clip_vision.config["hidden_size"]
    wanted, got = optimizer.module.input_dim, f"a {found} of width {width}"
    if found == "clip_vision_model" and width == wanted:
        # Of the published width there is an encoder for larger pictures as well, with other tokens.
        tokens = (clip_vision.image_size // clip_vision.config["patch_size"]) ** 2 + 1
        if width != PUBLISHED_WIDTH or tokens == PICTURE_TOKENS:
            return
        got = f"one with {tokens} tokens for {PICTURE_TOKENS}"
    raise ValueError(
        f"{optimizer.name} expected a clip_vision_model of width {wanted} as its CLIP_VISION, got {got}. "
        f"{file_kind('clip_vision_l').where_to_get}"
    )


def pictures_of(image: Tensor, mask: Tensor | None) -> tuple[list[Image.Image], bool]:
    """The objects, on white where a mask does not cover them, and whether such a mask was inverted.

    Raises:
        ValueError: the masks do not fit the pictures, or one of them is empty.
    """
    pictures = to_pil(image)
    if mask is None:
        return pictures, False
    # Masks come as [H, W], [B, H, W] or [B, 1, H, W], depending on the node that made them.
    masks = to_pil(mask.reshape(-1, *mask.shape[-2:], 1))
    if len(masks) not in (1, len(pictures)):
        raise ValueError(
            f"Encode Object expected one mask, or one for each of {len(pictures)} pictures, got "
            f"{len(masks)}. Connect as many masks as pictures."
        )
    masks = masks * len(pictures) if len(masks) == 1 else masks
    covering = [mask_of_part(*each) for each in zip(pictures, masks, strict=True)]
    cut = [cut_out_part(picture, each) for picture, (each, _) in zip(pictures, covering, strict=True)]
    return cut, any(inverted for _, inverted in covering)


def clip_tokens(
    clip_vision, reads: int, pixels: Tensor, done: Callable[[], None] = lambda: None
) -> Tensor:
    """The hidden states of CLIP that an optimizer reads, of pixel values: `[B, N, E]` float32."""
    layer = 1 if reads == PENULTIMATE else 0
    # ComfyUI's own preprocessing rounds where the published one truncates, so its network is called directly.
    # It gives the last hidden states, before the final norm, and with -2 those before them.
    tokens = []
    for chunk in pixels.split(PICTURES_AT_ONCE):
        states = clip_vision.model(pixel_values=chunk.to(clip_vision.load_device), intermediate_output=-2)
        tokens.append(states[layer].float())
        done()
    return torch.cat(tokens)


def encode_objects(
    optimizer: ManagedOptimizer, clip_vision, pixels: Tensor, null: str, seeds: Sequence[int], queries: int
) -> tuple[Tensor, Tensor]:
    """Contexts of objects under each seed `[B * seeds, 77, C]`, and the null context `[1, 77, C]`.

    Raises:
        FloatingPointError: they are not finite.
    """
    count = len(pixels)
    if null == BLANK:
        pixels = torch.cat([pixels, torch.zeros_like(pixels[:1])])
    bar, total = progress_bar(), -(-len(pixels) // PICTURES_AT_ONCE) + count * len(seeds)
    steps = iter(range(1, total + 1))
    comfy.model_management.load_models_gpu([clip_vision.patcher, optimizer.patcher])
    tokens = clip_tokens(clip_vision, optimizer.module.reads, pixels, lambda: bar(next(steps), total))
    tokens = tokens.to(optimizer.patcher.load_device)
    blank = tokens[count:] if null == BLANK else None
    contexts = []
    # One by one, since many queries take many times the memory of an object.
    for each in tokens[:count].split(1):
        for seed in seeds:
            contexts.append(object_context(optimizer.module, each, seed, queries))
            bar(next(steps), total)
    device = comfy.model_management.intermediate_device()
    context = torch.cat(contexts).to(device)
    nothing = null_context(optimizer.module, null, blank, seeds[0], queries).to(device)
    if not (context.isfinite().all() and nothing.isfinite().all()):
        raise FloatingPointError(
            f"Expected finite contexts from {optimizer.name}, got NaN or infinite values: its file or that "
            "of the CLIP vision model is damaged. Download it again."
        )
    return context, nothing


def behind(others: list | None, context: Tensor) -> Tensor:
    """Contexts behind those of other objects, `[B, 77, C]`. Raises ValueError if they do not go together."""
    if others is None:
        return context
    shapes = [list(each.shape[1:]) for each, _ in others]
    if shapes != [list(context.shape[1:])]:
        raise ValueError(
            f"Encode Object expected other_objects of one context of the shape {list(context.shape[1:])} for "
            f"each object, got {shapes}. Connect the object_context of another Encode Object, as it is."
        )
    return torch.cat([others[0][0], context])


class LoadEmbeddingOptimizer(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadEmbeddingOptimizer",
            display_name="Load Embedding Optimizer",
            category=CATEGORY,
            description="Loads what turns the picture of an object into the text context of a model.",
            search_aliases=["emb_opt", "object insertion", "paint by inpaint"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/object_insertion, such as emb_opt.pt.",
                ),
                io.Boolean.Input(
                    "nan_as_zero", default=False, advanced=True,
                    tooltip="Read values that are not a number as 0, as the published code does, instead of "
                            "refusing the file.",
                ),
            ],
            outputs=[
                OptimizerType.Output(display_name="optimizer", tooltip="For Encode Object."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str, nan_as_zero: bool) -> io.NodeOutput:
        optimizer, report = load_optimizer(FILES.path(file), file, nan_as_zero)
        return io.NodeOutput(optimizer, ui=told(cls, report))


class EncodeObject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_EncodeObject",
            display_name="Encode Object",
            category=CATEGORY,
            description="Turns pictures of objects into contexts by which Insert Object inserts them.",
            search_aliases=[
                "object insertion", "reference object", "embedding optimizer", "insert object",
                "object picture",
            ],
            # Its pictures are kept like those of an output node, but the node only runs if another needs it.
            has_intermediate_output=True,
            inputs=[
                OptimizerType.Input("optimizer", tooltip="From Load Embedding Optimizer."),
                io.ClipVision.Input("clip_vision", tooltip="The image encoder CLIP ViT-L/14."),
                io.Image.Input("image", tooltip="The object; each picture of a batch is an object."),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="White on the object, which is put on white and cropped to; Remove Background "
                            "gives one. The transparency that Load Image gives is recognized and inverted.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Draws the random queries by which the optimizer reads a picture.",
                ),
                io.Int.Input(
                    "queries", default=1, min=1, max=256,
                    tooltip="How many queries the context is the mean of: 1 as published; with more of them, "
                            "the seed matters less.",
                ),
                io.Int.Input(
                    "variants", default=1, min=1, max=64,
                    tooltip="Contexts of each object, under seed, seed + 1 and so on, one after another.",
                ),
                *preprocessing(),
                io.Conditioning.Input(
                    "other_objects", optional=True,
                    tooltip="Contexts from another Encode Object, which come first in the batch: for objects "
                            "whose pictures differ in size.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="object_context", tooltip="The encoded objects, for Insert Object.",
                ),
                io.Conditioning.Output(
                    display_name="null_context", tooltip="The context of no object, for Insert Object.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, optimizer: ManagedOptimizer, clip_vision, image: Tensor, seed: int, queries: int, variants: int,
        fit: str = CROP, pixel_scale: str = AS_PUBLISHED, null: str = ZEROS, mask: Tensor | None = None,
        other_objects: list | None = None,
    ) -> io.NodeOutput:
        check_encoder(clip_vision, optimizer)
        pictures, inverted = pictures_of(image, mask)
        if inverted:
            say(cls, INVERTED)
        seen = object_pictures(pictures, fit, clip_vision.image_size)
        pixels = object_pixels(seen, pixel_scale, clip_vision.image_size)
        seeds = range(seed, seed + variants)
        context, nothing = encode_objects(optimizer, clip_vision, pixels, null, seeds, queries)
        context = behind(other_objects, context)
        shown = ui.PreviewImage(to_tensor(seen), cls=cls)
        return io.NodeOutput([[context, {}]], [[nothing, {}]], ui=shown)


def preprocessing() -> list[io.Input]:
    """How a picture becomes what the encoder sees."""
    return [
        io.Combo.Input(
            "fit", options=list(FITS), default=CROP, optional=True,
            tooltip="For pictures that are not square: crop to the middle as published, which cuts slender "
                    "objects; squash; or letterbox on white.",
        ),
        io.Combo.Input(
            "pixel_scale", options=list(PIXEL_SCALES), default=AS_PUBLISHED, optional=True, advanced=True,
            tooltip="The published inference scales pixels to 0..1 before it normalizes them, its training "
                    "did not.",
        ),
        io.Combo.Input(
            "null", options=list(NULLS), default=ZEROS, optional=True, advanced=True,
            tooltip="What stands for no object: zeros as in the published inference, or the encoded blank "
                    "picture as in its training.",
        ),
    ]
