"""The miniature InstructPix2Pix as a native ComfyUI object, with all that inserts things by it."""
from __future__ import annotations

import comfy.model_base
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ...pit.demo.models.instruct import OPTIMIZER, instruct_changes, optimizer_file
from ...pit.demo.models.sizes import LATENT_CHANNELS
from ...pit.demo.models.weights import SD15
from ..object_insertion.encoding import load_optimizer
from ..object_insertion.types import OptimizerType
from ..piece_it_together.types import CATEGORY
from .models import (
    LIKE_SD15,
    Base,
    MiniatureSD15,
    load_autoencoder,
    load_clip_vision,
    load_text_encoders,
    load_unet,
)


class MiniatureInstruct(MiniatureSD15):
    """The InstructPix2Pix that the miniature of SD 1.5's structure becomes by other weights."""

    unet_config = MiniatureSD15.unet_config | {"in_channels": 2 * LATENT_CHANNELS}

    def get_model(
        self, state_dict: dict[str, Tensor], prefix: str = "", device: torch.device | None = None
    ) -> comfy.model_base.SD15_instructpix2pix:
        """ComfyUI's own model of such UNets."""
        return comfy.model_base.SD15_instructpix2pix(self, device=device)

    def process_unet_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights to load, from those of the base."""
        names = comfy.utils.unet_to_diffusers(self.unet_config)
        return state_dict | {names[key]: value for key, value in instruct_changes().items()}


LIKE_INSTRUCT = Base(SD15, MiniatureInstruct, LIKE_SD15.marks, LIKE_SD15.text)


class LoadCreatureInstruct(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadCreatureInstruct",
            display_name="Load Creature Instruct",
            category=CATEGORY,
            description=(
                "Loads a miniature InstructPix2Pix, trained on drawn creatures and things, with all that it "
                "takes to insert a thing into a picture."
            ),
            search_aliases=[
                "demo models", "object insertion demo", "instructpix2pix demo", "insert an object",
            ],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The model that inserts things, for Insert Object."),
                io.Clip.Output(tooltip="The text encoder of its base, for CLIP Text Encode."),
                io.Vae.Output(tooltip="Its VAE, for Insert Object and VAE Decode."),
                io.ClipVision.Output(tooltip="The encoder of pictures, for Encode Object."),
                OptimizerType.Output(
                    display_name="optimizer", tooltip="Its Embedding Optimizer, for Encode Object.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        optimizer, _ = load_optimizer(optimizer_file(), OPTIMIZER)
        return io.NodeOutput(
            load_unet(LIKE_INSTRUCT), load_text_encoders(LIKE_SD15), load_autoencoder(), load_clip_vision(),
            optimizer,
        )
