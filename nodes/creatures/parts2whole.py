"""The miniature Parts2Whole as native ComfyUI objects, with all that reads references for it."""
from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.packages import check_packages
from ..parts2whole.loading import Parts2WholeUNet, managed_parts, model_of_kind
from ..parts2whole.types import ManagedParts2Whole, Parts2WholeType
from ..piece_it_together.types import CATEGORY
from .models import (
    LIKE_SD15,
    CreatureLatent,
    Miniature,
    load_autoencoder,
    load_clip_vision,
    load_text_encoders,
)
from .size import tell_other_sizes

NAME = "the creatures' Parts2Whole"


class MiniatureParts2Whole(Miniature, Parts2WholeUNet):
    """The denoising UNet that the miniature of SD 1.5's structure becomes by other weights."""


def load_parts2whole(disable_dynamic: bool = False) -> tuple[ModelPatcher, ManagedParts2Whole]:
    """MODEL and PIT_PARTS2WHOLE; ComfyUI may keep the first from being loaded piece by piece."""
    # Imported here, because diffusers takes seconds to import.
    from ...pit.demo.models.whole import load_whole
    from ...pit.parts2whole.unets import blocks_of

    whole = load_whole()
    patcher = model_of_kind(whole.unet, MiniatureParts2Whole, CreatureLatent(), disable_dynamic)
    # ComfyUI makes copies with weights of their own by this: to compile, to train, and for a second GPU.
    patcher.cached_patcher_init = (reload_model, ())
    tell_other_sizes(patcher)
    return patcher, managed_parts(NAME, whole, blocks_of(whole.unet))


def reload_model(disable_dynamic: bool = False) -> ModelPatcher:
    """The MODEL, with new weights from its file."""
    return load_parts2whole(disable_dynamic)[0]


class LoadCreatureParts2Whole(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadCreatureParts2Whole",
            display_name="Load Creature Parts2Whole",
            category=CATEGORY,
            description=(
                "Loads a miniature Parts2Whole, trained on drawn creatures: it puts parts of several "
                "creatures together in the pose that a label map shows."
            ),
            search_aliases=["demo models", "parts2whole demo", "dress a creature", "creature in a pose"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The model that draws wholes, for Apply Parts2Whole."),
                io.Clip.Output(tooltip="Its text encoder, for Encode References and CLIP Text Encode."),
                io.Vae.Output(tooltip="Its VAE, for Encode References and VAE Decode."),
                io.ClipVision.Output(tooltip="The encoder of pictures, for Encode References."),
                Parts2WholeType.Output(
                    display_name="parts2whole",
                    tooltip="What reads references and poses for it, for Encode References, Pose Map and "
                            "Apply Parts2Whole.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        check_packages("Load Creature Parts2Whole", ["diffusers"])
        model, parts = load_parts2whole()
        return io.NodeOutput(
            model, load_text_encoders(LIKE_SD15), load_autoencoder(), load_clip_vision(), parts,
        )
