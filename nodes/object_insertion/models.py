"""The model that inserts objects: which one it may be, its published bias, and its steps."""
from __future__ import annotations

import comfy.model_base
import comfy.samplers
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.object_insertion.condition import AS_PUBLISHED
from ...pit.object_insertion.files import read_bias
from ...pit.object_insertion.published import NAME
from ...pit.object_insertion.sampling import STEPS, TRAINED_STEPS, leading_sigmas
from ..bridge.folders import ModelFiles
from ..bridge.loaders import FileNode
from .types import CATEGORY

FILES = ModelFiles("instruct_unet")
LATENT_CHANNELS = 4  # of Stable Diffusion 1.5
FIRST = "diffusion_model.input_blocks.0.0"
KARRAS = "karras"
SPACINGS = (AS_PUBLISHED, KARRAS)


def check_model(node: str, model: ModelPatcher) -> None:
    """Raise ValueError unless a model is an InstructPix2Pix of Stable Diffusion 1.5's kind."""
    base, channels, latent = model.model, None, LATENT_CHANNELS
    if hasattr(base.diffusion_model, "input_blocks") and not isinstance(base, comfy.model_base.SDXL):
        channels = comfy.utils.get_attr(base, f"{FIRST}.weight").shape[1]
        latent = base.latent_format.latent_channels
    wanted = 2 * latent  # noisy latents and those of the scene
    if channels == wanted and isinstance(base, comfy.model_base.IP2P):
        return
    kinds = {latent: "a text-to-image model", wanted + 1: "an inpainting model"}
    got = f"{kinds.get(channels, 'another model')} with {channels}" if channels else type(base).__name__
    raise ValueError(
        f"{node} expected an InstructPix2Pix of Stable Diffusion 1.5, with {wanted} input channels, got "
        f"{got}. Load that of paint-by-inpaint/add-base or the published one, which `python -m pit download "
        f"{NAME}` fetches; the help page of Patch InstructPix2Pix Bias tells how ComfyUI loads them."
    )


class InsertionSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_InsertionSchedule",
            display_name="Insertion Schedule",
            category=CATEGORY,
            description="The steps of the published pipeline: evenly spaced, from the second lowest up.",
            search_aliases=["leading", "sigmas", "scheduler", "object insertion"],
            inputs=[
                io.Model.Input("model", tooltip="The InstructPix2Pix model."),
                io.Int.Input(
                    "steps", default=STEPS, min=1, max=TRAINED_STEPS,
                    tooltip="100 as published, with the sampler euler_ancestral; 30 do with dpmpp_2m and the "
                            "spacing karras.",
                ),
                io.Combo.Input(
                    "spacing", options=list(SPACINGS), default=AS_PUBLISHED, optional=True,
                    tooltip="As published: even in time; with few steps, or with 501 to 998, that begins "
                            "below full noise. karras: for samplers that need few steps, such as dpmpp_2m.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    display_name="sigmas",
                    tooltip="For SamplerCustomAdvanced, with the guider of Insert Object.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int, spacing: str = AS_PUBLISHED) -> io.NodeOutput:
        check_model("Insertion Schedule", model)
        sampling = model.get_model_object("model_sampling")
        if spacing == KARRAS:
            return io.NodeOutput(comfy.samplers.calculate_sigmas(sampling, KARRAS, steps))
        sigmas = leading_sigmas(steps, sampling.sigmas.cpu())
        # The published scheduler repeats the highest of 1000 levels, by which other samplers would divide.
        return io.NodeOutput(torch.unique_consecutive(sigmas))


class PatchBias(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PatchInstructBias",
            display_name="Patch InstructPix2Pix Bias",
            category=CATEGORY,
            description=(
                "Gives a model the first bias that the published Embedding Optimizer was trained with, which "
                "is all in which the published UNet differs from paint-by-inpaint/add-base."
            ),
            search_aliases=["conv_in bias", "object insertion", "add-base"],
            inputs=[
                io.Model.Input("model", tooltip="The model of paint-by-inpaint/add-base."),
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The bias from models/object_insertion, or the whole published UNet, of which "
                            "only the bias is read.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the bias, for Insert Object."),
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, file: str) -> io.NodeOutput:
        check_model("Patch InstructPix2Pix Bias", model)
        bias, key = read_bias(FILES.path(file)), f"{FIRST}.bias"
        wanted = comfy.utils.get_attr(model.model, key).shape
        if bias.shape != wanted:
            raise ValueError(
                f"Patch InstructPix2Pix Bias expected a bias of {wanted[0]} values in {file}, as the model "
                f"has it, got {len(bias)}. Use the bias of a UNet of this width."
            )
        patched = model.clone()
        patched.add_patches({key: ("set", (bias,))})
        return io.NodeOutput(patched)
