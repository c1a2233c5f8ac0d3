"""Inserting encoded objects into scenes: what the sampler needs, and the way back into the scene."""
from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...pit.images import to_pil, to_tensor
from ...pit.object_insertion.sampling import GUIDANCE, IMAGE_GUIDANCE, is_guided
from ...pit.object_insertion.scene import Place, find_place, put_back, working_pictures, working_region
from ..bridge.noise import with_published_start
from .models import check_model
from .types import CATEGORY, PlaceType

WORKING_SIZE, MARGIN = 512, 0.5
Conditioning = list[list[Any]]


def check_contexts(model: ModelPatcher, contexts: Conditioning) -> int:
    """The number of objects. Raises ValueError for no contexts, and for others than the model reads."""
    if not contexts:
        raise ValueError("Insert Object expected contexts, got none. Connect those of Encode Object.")
    wanted = model.model.model_config.unet_config["context_dim"]
    for context, _ in contexts:
        if context.shape[-1] != wanted:
            raise ValueError(
                f"Insert Object expected contexts of width {wanted}, as the model reads them, got "
                f"{context.shape[-1]}. Use the Embedding Optimizer that belongs to the model."
            )
    return max(len(context) for context, _ in contexts)


def opaque(scene: Tensor) -> Tensor:
    """Scenes `[S, H, W, 3]` in color, on white where they are transparent."""
    # Untouched if they are so already: what comes back must be the same to the last bit.
    return scene if scene.ndim == 4 and scene.shape[-1] == 3 else to_tensor(to_pil(scene))


def check_vae(model: ModelPatcher, vae) -> None:
    """Raise ValueError for the VAE of a model with other latents."""
    wanted = model.model.latent_format.latent_channels
    if vae.latent_channels != wanted:
        raise ValueError(
            f"Insert Object expected the VAE of the model, with {wanted} latent channels, got one with "
            f"{vae.latent_channels}. Load the VAE that belongs to the model."
        )


def with_scene(contexts: Conditioning, latents: Tensor) -> Conditioning:
    """The contexts, with the latents of the scene where ComfyUI's InstructPix2Pix looks for them."""
    return [[context, facts | {"concat_latent_image": latents}] for context, facts in contexts]


def guider_for(
    model: ModelPatcher, both: Conditioning, scene: Conditioning, neither: Conditioning, guidance: float,
    image_guidance: float,
) -> comfy.samplers.CFGGuider:
    """ComfyUI's guider for the published guidance, with no more passes than count."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    # neither + image_guidance * (scene - neither) + guidance * (both - scene): of equal scales, the pass with
    # the scene alone drops out. An image_guidance of 1 drops the one with neither, which that guider sees.
    if not is_guided(guidance, image_guidance) or guidance == image_guidance:
        plain = comfy.samplers.CFGGuider(model)
        plain.set_conds(both, neither)
        plain.set_cfg(guidance if is_guided(guidance, image_guidance) else 1.0)
        return plain
    dual = Guider_DualCFG(model)
    dual.set_conds(both, scene, neither)
    dual.set_cfg(guidance, image_guidance)
    return dual


def start_latent(place: Place, latents: Tensor, count: int) -> dict[str, Tensor]:
    """The LATENT to sample from: empty, or around a region the scene, of which the rest is held."""
    region = working_region(place)
    shape = count, *latents.shape[1:]
    if region is None:
        return {"samples": torch.zeros(shape, dtype=latents.dtype, device=latents.device)}
    held = latents.repeat(count // len(latents), 1, 1, 1)
    return {"samples": held, "noise_mask": region.repeat(count // len(region), 1, 1, 1)}


class InsertObject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_InsertObject",
            display_name="Insert Object",
            category=CATEGORY,
            description=(
                "Prepares the insertion of encoded objects into a scene. Sample with SamplerCustomAdvanced, "
                "decode, and put the picture back with Put Back into Scene."
            ),
            search_aliases=[
                "object insertion", "add object", "instructpix2pix", "paste object", "insert object",
                "place object", "inpaint object", "composite",
            ],
            inputs=[
                io.Model.Input("model", tooltip="An InstructPix2Pix of Stable Diffusion 1.5."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.Image.Input("scene", tooltip="The picture that the object goes into, of any size."),
                io.Conditioning.Input(
                    "object_context",
                    tooltip="From Encode Object; each of a batch gives a picture of its own.",
                ),
                io.Conditioning.Input("null_context", tooltip="From Encode Object."),
                io.Float.Input(
                    "guidance", default=GUIDANCE, min=0.0, max=50.0, step=0.1,
                    tooltip="How much the object counts; 7 as published, 1 or less samples without guidance.",
                ),
                io.Float.Input(
                    "image_guidance", default=IMAGE_GUIDANCE, min=0.0, max=50.0, step=0.1,
                    tooltip="How closely the scene is kept; 1.5 as published, 1 saves a third of the time, "
                            "and less samples without guidance.",
                ),
                *region_inputs(),
            ],
            outputs=[
                io.Guider.Output(
                    display_name="guider", tooltip="How to sample, for SamplerCustomAdvanced.",
                ),
                io.Latent.Output(
                    display_name="latent", tooltip="What to sample, for SamplerCustomAdvanced.",
                ),
                PlaceType.Output(display_name="place", tooltip="Where it belongs, for Put Back into Scene."),
                io.Conditioning.Output(
                    display_name="object_and_scene",
                    tooltip="What guides to the object in the scene, for Dual CFG Guider, say.",
                ),
                io.Conditioning.Output(
                    display_name="scene_only", tooltip="What guides to the scene alone, for another guider.",
                ),
                io.Conditioning.Output(
                    display_name="neither", tooltip="What guides to neither, for another guider.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, vae, scene: Tensor, object_context: Conditioning,
        null_context: Conditioning, guidance: float, image_guidance: float, region: Tensor | None = None,
        working_size: int = WORKING_SIZE, margin: float = MARGIN,
    ) -> io.NodeOutput:
        check_model("Insert Object", model)
        objects = check_contexts(model, object_context)
        check_contexts(model, null_context)
        check_vae(model, vae)
        pictures = opaque(scene)
        if objects > 1 and len(pictures) not in (1, objects):
            raise ValueError(
                f"Insert Object expected one scene, or one for each of {objects} objects, got "
                f"{len(pictures)}. Pass as many scenes as objects, or one of either."
            )
        masks = None if region is None else region.reshape(-1, *region.shape[-2:])
        multiple = vae.spacial_compression_encode()
        place = find_place(pictures, masks, working_size, margin, multiple)
        latents = vae.encode(working_pictures(place))
        both, alone = with_scene(object_context, latents), with_scene(null_context, latents)
        started = with_published_start(model)
        guider = guider_for(started, both, alone, null_context, guidance, image_guidance)
        latent = start_latent(place, latents, max(objects, len(pictures)))
        return io.NodeOutput(guider, latent, place, both, alone, null_context)


def region_inputs() -> list[io.Input]:
    """Where the object may go, and at which size it is inserted."""
    return [
        io.Mask.Input(
            "region", optional=True,
            tooltip="Where the object may go: all outside of it is kept to the pixel. Without one, the model "
                    "finds the place by itself.",
        ),
        io.Int.Input(
            "working_size", default=WORKING_SIZE, min=0, max=4096, step=8, optional=True, advanced=True,
            tooltip="Larger scenes are worked on with as many pixels as a square of this size has, around "
                    "the region if there is one, and the result is put back; 0 takes any size as it is, as "
                    "published.",
        ),
        io.Float.Input(
            "margin", default=MARGIN, min=0.0, max=4.0, step=0.05, optional=True, advanced=True,
            tooltip="How much is seen around the region on each side, as a share of its size.",
        ),
    ]


class PutBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PutBack",
            display_name="Put Back into Scene",
            category=CATEGORY,
            description="Puts a decoded picture back into the scene, in its size, and keeps all the rest.",
            search_aliases=["object insertion", "paste", "stitch", "uncrop", "blend back", "composite"],
            inputs=[
                io.Image.Input("image", tooltip="The decoded latents that Insert Object has prepared."),
                PlaceType.Input("place", tooltip="From Insert Object."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The scene with the object, for Save Image."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, place: Place) -> io.NodeOutput:
        return io.NodeOutput(put_back(place, image))
