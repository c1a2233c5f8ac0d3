"""Loaders for the creature models that come with the pack."""
from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ...pit.demo.models.weights import BASE_ADAPTER, IP_ADAPTER, IP_PRIOR, weight_file
from ..bridge.base_adapter import load_base_adapter
from ..bridge.sockets import IPAdapterType
from ..piece_it_together.loading import load_ip_adapter, load_prior
from ..piece_it_together.types import CATEGORY, PriorType
from .models import (
    LIKE_SD15,
    LIKE_SDXL,
    load_autoencoder,
    load_clip_vision,
    load_preview,
    load_text_encoders,
    load_unet,
)


class LoadCreatureModels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadCreatureModels",
            display_name="Load Creature Models",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description=(
                "Loads the miniature models that come with the pack: the whole chain, trained on drawn "
                "creatures."
            ),
            search_aliases=["demo models", "piece it together demo"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The model that renders creatures, for Apply IP+ Tokens."),
                io.Clip.Output(tooltip="Its text encoder, for CLIP Text Encode."),
                io.Vae.Output(tooltip="Its VAE, for VAE Decode."),
                io.ClipVision.Output(
                    tooltip="The encoder of pictures, for Encode IP+ Parts, Encode IP+ Image and Encode "
                            "Image Embedding.",
                ),
                IPAdapterType.Output(
                    display_name="ip_adapter",
                    tooltip="The IP-Adapter of the creatures, for all nodes that encode or apply tokens.",
                ),
                PriorType.Output(
                    display_name="prior", tooltip="The prior that completes creatures, for IP-Prior Sample.",
                ),
                IPAdapterType.Output(
                    display_name="base_adapter",
                    tooltip="The base IP-Adapter of the creatures, for Embedding to IP+ Tokens and Apply IP+ "
                            "Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(
            load_unet(LIKE_SDXL), load_text_encoders(LIKE_SDXL), load_autoencoder(), load_clip_vision(),
            load_ip_adapter(weight_file(IP_ADAPTER), IP_ADAPTER),
            replace(load_prior(weight_file(IP_PRIOR), IP_PRIOR), preview=load_preview()),
            load_base_adapter(weight_file(BASE_ADAPTER), BASE_ADAPTER),
        )


class LoadCreatureSD15(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadCreatureSD15",
            display_name="Load Creature SD 1.5",
            category=CATEGORY,
            description=(
                "Loads the miniature text-to-image model that comes with the pack: built like Stable "
                "Diffusion 1.5, trained on drawn creatures and things."
            ),
            search_aliases=["demo models", "sd15 demo", "text to image demo"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    tooltip="The model that draws creatures and things from words, for KSampler.",
                ),
                io.Clip.Output(tooltip="Its text encoder, for CLIP Text Encode."),
                io.Vae.Output(tooltip="Its VAE, for VAE Decode."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_unet(LIKE_SD15), load_text_encoders(LIKE_SD15), load_autoencoder())
