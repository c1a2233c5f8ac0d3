"""The empty latents that tokens are rendered into."""
from __future__ import annotations

import math

import comfy.model_management
import torch
from comfy import supported_models
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.concepts.concepts import Concepts
from ..bridge.sockets import CONCEPTS
from .types import CATEGORY

# By the classes that ComfyUI recognizes, the more special ones first; the width of the pictures they learned.
NATIVE_SIZES = {
    supported_models.SDXL: 1024, supported_models.SDXLRefiner: 1024, supported_models.SD20: 768,
    supported_models.SD15: 512,
}
MOST_VALUES = 100_000_000  # 1,525 pictures of SDXL's size


def native_size(model: ModelPatcher) -> int:
    """The size of the square pictures that a model draws best. Raises ValueError for an unknown kind."""
    config = getattr(model.model, "model_config", None)
    # Of the class: ComfyUI logs a warning when a description of a model is asked for what it lacks.
    own = getattr(type(config), "native_size", None)
    if own is not None:
        return own
    for kind, size in NATIVE_SIZES.items():
        if isinstance(config, kind):
            return size
    raise ValueError(
        f"Empty Latent for Tokens expected a model of SDXL's kind, got {type(model.model).__name__}. Use the "
        "empty latent that belongs to this model."
    )


def check_size(shape: tuple[int, ...]) -> None:
    """Raise ValueError for latents that would fill the memory."""
    # A file of tokens of width 1 holds a million concepts in a few megabytes.
    if math.prod(shape) > MOST_VALUES:
        raise ValueError(
            f"Empty Latent for Tokens expected at most {MOST_VALUES // math.prod(shape[1:])} pictures of "
            f"{shape[-1]}x{shape[-1]} latent pixels at once, got {shape[0]}. Lower images_per_concept or "
            "percent, or pick some of the concepts."
        )


class EmptyLatent(io.ComfyNode):
    takes = {"tokens": Concepts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_EmptyLatent",
            display_name="Empty Latent for Tokens",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description="Empty latents: one for each concept, in the size that the model draws best.",
            search_aliases=["empty latent image", "batch size", "latent from tokens", "latent size"],
            inputs=[
                io.Model.Input("model", tooltip="The model that renders the concepts, which sets the size."),
                io.MultiType.Input(
                    "tokens", CONCEPTS,
                    tooltip="The concepts, IP+ tokens or image embeddings, which set the number of latents.",
                ),
                io.Int.Input(
                    "images_per_concept", default=1, min=1, max=64,
                    tooltip="How many pictures of each concept, each with noise of its own.",
                ),
                io.Int.Input(
                    "percent", default=100, min=25, max=400, step=25, advanced=True,
                    tooltip="Size of the pictures: 100 is the size that the model draws best.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="One empty latent for each concept, for KSampler.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, tokens: Concepts, images_per_concept: int, percent: int
    ) -> io.NodeOutput:
        format = model.model.latent_format
        factor = format.spacial_downscale_ratio
        side = native_size(model) * percent // 100 // factor
        shape = len(tokens.values) * images_per_concept, format.latent_channels, side, side
        check_size(shape)
        samples = torch.zeros(
            shape,
            device=comfy.model_management.intermediate_device(),
            dtype=comfy.model_management.intermediate_dtype(),
        )
        # As ComfyUI's own empty latents say it, for models whose latents are of another scale.
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": factor})
