"""Training Parts2Whole inside ComfyUI, on a folder of pictures, with the models of the graph."""
from __future__ import annotations

import gc
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor, nn

from ...pit.files.pictures import describe_skipped
from ...pit.files.published import file_kind
from ...pit.images import to_pil, to_tensor
from ...pit.packages import LORA_TRAINING, check_packages
from ...pit.parts2whole.training.cache import SIZE, PartsCache, PartsEncoders, Preparation, encode_parts
from ...pit.parts2whole.training.layout import EXPECTED, POSE, describe_parts_dataset, read_parts_dataset
from ...pit.parts2whole.training.recipes import PRESETS, RESULT, TRAINS, VALIDATED, PartsRecipe
from ...pit.training.recipes import RunSettings
from ...pit.training.unets import like_sd15, unet_arguments
from ..bridge.feedback import progress_bar
from ..bridge.folders import own_folder
from ..bridge.outputs import Outputs
from ..bridge.picture_folders import input_folder, input_folders, offered_names, why_no_folder
from ..bridge.stamps import patched_weights_of, weights_of
from ..bridge.training import batch_inputs, last_chart, run, save_every_input, seed_input, steps_input
from ..bridge.training_copies import fill_unet
from .loading import FILES, PARTS, managed_parts, model_of
from .references import check_vae, embedded_words
from .types import CATEGORY, ManagedParts2Whole, Parts2WholeType

if TYPE_CHECKING:
    from ...pit.parts2whole.files import Parts2Whole

NODE = "Train Parts2Whole"
SAMPLES = "parts2whole_samples"
AS_PRESET = "as the preset"
WRITTEN = Outputs()


def dataset_folder(choice: str) -> Path:
    """The folder of one of the choices; FileNotFoundError for anything else."""
    return input_folder(choice, NODE, f"Put a folder with {EXPECTED} into ComfyUI's input folder.")


def is_stable_diffusion_15(config: Mapping[str, Any], channels: int) -> bool:
    """Whether a UNet of these sizes, in ComfyUI's names, is of its kind, for latents of so many channels."""
    if not like_sd15(config):
        return False
    sizes = unet_arguments(config)
    return sizes["in_channels"] == channels and not sizes["use_linear_projection"]


def token_dim(model: ModelPatcher, clip_vision, parts: ManagedParts2Whole | None) -> int:
    """The width of the image tokens: that of given parts, or of words, or for other latents any width."""
    if parts is not None:
        return parts.image_attention.token_dim
    width = model.model.model_config.unet_config["context_dim"]
    published = isinstance(model.model.latent_format, comfy.latent_formats.SD15)
    return width if published else getattr(clip_vision, "config", {}).get("projection_dim", width)


def check_models(model: ModelPatcher, vae, clip_vision, width: int) -> None:
    """Raise ValueError unless the models are those of a Stable Diffusion 1.5 and of Parts2Whole.

    Args:
        width: of the image tokens.
    """
    latents = model.model.latent_format
    if not is_stable_diffusion_15(model.model.model_config.unet_config, latents.latent_channels):
        found = type(model.model.model_config).__name__
        raise ValueError(
            f"{NODE} expected a model of Stable Diffusion 1.5, got {found}. Connect that of "
            "Load Parts2Whole, or a Stable Diffusion 1.5."
        )
    check_vae(NODE, vae, latents)
    found = clip_vision.model_type
    projected = getattr(clip_vision, "config", {}).get("projection_dim", width)
    if found != "clip_vision_model" or projected != width:
        raise ValueError(
            f"{NODE} expected a clip_vision_model that projects to width {width}, got a {found} of width "
            f"{projected}. {file_kind('parts2whole_image_encoder').where_to_get}"
        )


def encoders_of(clip, vae, clip_vision, width: int) -> PartsEncoders:
    """What encodes examples, from the models of the graph; `width` is that of the UNets' context."""
    def tokens(pixels: Tensor) -> Tensor:
        comfy.model_management.load_models_gpu([clip_vision.patcher])
        return clip_vision.model(pixel_values=pixels.to(clip_vision.load_device))[2].float().cpu()

    def latents(pictures: Tensor) -> Tensor:
        # ComfyUI's VAE takes [B, H, W, 3] in 0..1, where the trainer has [B, 3, H, W] in -1..1. It only gives
        # the mean of its distribution, so the deviation is set to zero; it is a few thousandths of the mean.
        mean = vae.encode((pictures.movedim(1, -1) + 1) / 2).float().cpu()
        return torch.cat([mean, torch.zeros_like(mean)], dim=1)

    def words(lines: Sequence[str]) -> Tensor:
        return embedded_words(clip, lines, width, NODE, cut=True).cpu()

    models = {
        "VAE": patched_weights_of(vae.patcher), "image encoder": weights_of(clip_vision.patcher),
        "text encoder": patched_weights_of(clip.patcher),
    }
    return PartsEncoders(models, clip_vision.image_size, latents, tokens, words)


def unet_of(model: ModelPatcher) -> nn.Module:
    """The UNet of the graph for the trainer, with its own copy of the patched weights, in fp32 on the CPU.

    Raises:
        ValueError: the model is not of the kind of Stable Diffusion 1.5.
    """
    # Imported here, because diffusers takes seconds to import.
    from ...pit.parts2whole.unets import empty_unet

    unet = empty_unet(unet_arguments(model.model.model_config.unet_config))
    fill_unet(unet, model, torch.float32)
    return unet


def parts_of(model: ModelPatcher, parts: ManagedParts2Whole | None, seed: int, width: int) -> Parts2Whole:
    """What the training starts from: copies of all four models, or new ones on a Stable Diffusion 1.5.

    Args:
        width: of the image tokens of new ones.
    """
    from ...pit.ip_adapter.attention import ImageCrossAttention
    from ...pit.parts2whole.files import Parts2Whole
    from ...pit.parts2whole.pose import PoseGuider, channels_for
    from ...pit.parts2whole.training.start import new_parts
    from ...pit.parts2whole.unets import empty_reference_unet

    unet = unet_of(model)
    if parts is None:
        pixel = model.model.latent_format.spacial_downscale_ratio
        return new_parts(unet, seed, width, channels_for(pixel))
    config = parts.reference_unet.model.network.config
    reference_unet = empty_reference_unet({key: each for key, each in config.items() if key[0] != "_"})
    guider, attention = parts.guider, parts.image_attention
    copies = (
        reference_unet, PoseGuider(**guider.sizes, device="meta"),
        ImageCrossAttention(attention.token_dim, attention.inner_dims, device="meta"),
    )
    held = parts.reference_unet.model.network, guider, attention
    for copy, network in zip(copies, held, strict=True):
        weights = network.state_dict().items()
        # Copied in any case, like those of the UNet.
        state = {key: value.to("cpu", torch.float32, copy=True) for key, value in weights}
        copy.load_state_dict(state, assign=True)
    return Parts2Whole(unet, *copies)


def stamp_of(model: ModelPatcher, parts: ManagedParts2Whole | None) -> str:
    """What tells one start from another."""
    stamps = [patched_weights_of(model)]
    if parts is not None:
        stamps += map(weights_of, (parts.reference_unet, parts.pose_guider, parts.decoupled))
    return hashlib.sha256(" ".join(stamps).encode()).hexdigest()


def run_inputs() -> list[io.Input]:
    """What is trained, and how long."""
    return [
        io.Combo.Input(
            "preset", options=list(PRESETS), default=next(iter(PRESETS)),
            tooltip="Everything that the other inputs do not set.",
        ),
        io.Combo.Input(
            "trains", options=[AS_PRESET, *TRAINS], default=AS_PRESET,
            tooltip="All weights; or a LoRA on both UNets, or on the reference UNet alone, which is merged "
                    "into them in the end.",
        ),
        steps_input(),
        # Zero is no use as a value here, so it stands for the preset's own.
        io.Float.Input(
            "learning_rate", default=0.0, min=0.0, max=1.0, step=1e-6, round=1e-9,
            tooltip="Peak learning rate; 0 uses the preset, 0.00002 is as published.",
        ),
        io.Int.Input(
            "width", default=SIZE, min=64, max=2048, step=8, tooltip="Width that pictures are cropped to.",
        ),
        io.Int.Input(
            "height", default=SIZE, min=64, max=2048, step=8, tooltip="Height that pictures are cropped to.",
        ),
        save_every_input("a validation and pictures"),
        seed_input("crops, the order of samples, what is left out, the noise and new weights"),
    ]


def advanced_inputs() -> list[io.Input]:
    """Inputs that few people need to set."""
    return [
        io.String.Input(
            "pose", default=POSE, optional=True, advanced=True,
            tooltip="Which of the poses in the list is learned; densepose as published.",
        ),
        io.Int.Input(
            "rank", default=64, min=1, max=1024, optional=True, advanced=True,
            tooltip="Rank of the LoRA, if one is trained.",
        ),
        *batch_inputs(),
        io.Int.Input(
            "variants", default=4, min=1, max=64, optional=True, advanced=True,
            tooltip="Crops of each picture: the largest in the middle, and random ones.",
        ),
        Parts2WholeType.Input(
            "parts2whole", optional=True,
            tooltip="From Load Parts2Whole, to train it further; without it, a new one begins on the model.",
        ),
    ]


class TrainParts2Whole(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainParts2Whole",
            display_name=NODE,
            category=CATEGORY,
            description=(
                "Trains Parts2Whole on pictures, their poses, and references of their parts. Cancel keeps a "
                "checkpoint, from which the same node resumes when it is queued again."
            ),
            search_aliases=["parts2whole training", "train reference unet", "fine-tune parts2whole"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model of Load Parts2Whole, or a Stable Diffusion 1.5.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder of Stable Diffusion 1.5."),
                io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 1.5."),
                io.ClipVision.Input(
                    "clip_vision", tooltip="The image encoder CLIP ViT-L/14 with its projection.",
                ),
                io.Combo.Input(
                    "folder", options=offered_names(input_folders()),
                    tooltip="Folder with train.jsonl and the pictures that it names: see the help page.",
                ),
                io.String.Input(
                    "name", default="my_parts2whole",
                    tooltip="Name of the run; Load Parts2Whole finds it as models/parts2whole/NAME.",
                ),
                *run_inputs(),
                *advanced_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The trained model, for Apply Parts2Whole."),
                Parts2WholeType.Output(
                    display_name="parts2whole", tooltip="What reads references and poses for it.",
                ),
                io.Image.Output(display_name="chart", tooltip="The loss."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        return why_no_folder(folder, dataset_folder) or True

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: object) -> int:
        return 0 if name is None else WRITTEN.fingerprint(own_folder(FILES.folder_to_write(), name) / RESULT)

    @classmethod
    def execute(
        cls, model: ModelPatcher, clip, vae, clip_vision, folder: str, name: str, preset: str, trains: str,
        steps: int, learning_rate: float, width: int, height: int, save_every: int, seed: int,
        pose: str = POSE, rank: int = 64, batch: int = 0, accumulation: int = 0, variants: int = 4,
        parts2whole: ManagedParts2Whole | None = None,
    ) -> io.NodeOutput:
        check_packages(NODE, LORA_TRAINING)
        run_folder = own_folder(FILES.folder_to_write(), name)
        context = model.model.model_config.unet_config["context_dim"]
        width_of_tokens = token_dim(model, clip_vision, parts2whole)
        check_models(model, vae, clip_vision, width_of_tokens)
        chosen = PRESETS[preset]
        recipe = replace(
            chosen, trains=chosen.trains if trains == AS_PRESET else trains, steps=steps, rank=rank,
            batch=batch or chosen.batch, accumulation=accumulation or chosen.accumulation,
            learning_rate=learning_rate or chosen.learning_rate,
        )
        pixel = model.model.latent_format.spacial_downscale_ratio
        preparation = Preparation(width, height, variants, seed, pixel)
        cache = encoded(encoders_of(clip, vae, clip_vision, context), folder, name, pose, preparation)
        # After the encoding, which needs the models, and before their weights are read below, since unloading
        # also takes patches out of them again.
        comfy.model_management.unload_all_models()
        settings = RunSettings(
            run_folder, seed, save_every, save_every, started_from=stamp_of(model, parts2whole)
        )
        try:
            # ComfyUI runs nodes in inference mode, in which weights silently get no gradients.
            with torch.inference_mode(False):
                path = train(cls, model, parts2whole, vae, cache, recipe, settings, width_of_tokens)
        finally:
            gc.collect()
            comfy.model_management.soft_empty_cache()
        # Read back from the files, so that this run and every later one use the same weights.
        trained = loaded(path.parent)
        WRITTEN.keep(path)
        chart = to_tensor([last_chart(run_folder)])
        return io.NodeOutput(*trained, chart, ui=ui.PreviewImage(chart, cls=cls))


def loaded(folder: Path) -> tuple[ModelPatcher, ManagedParts2Whole]:
    """What Load Parts2Whole makes of a folder."""
    from ...pit.parts2whole.files import load_parts
    from ...pit.parts2whole.unets import blocks_of

    paths = [folder / part for part in PARTS]
    parts = load_parts(*paths)
    managed = managed_parts(folder.name, parts, blocks_of(parts.unet))
    return model_of(parts.unet, paths[0], managed.latents), managed


def encoded(
    encoders: PartsEncoders, folder: str, name: str, pose: str, preparation: Preparation
) -> PartsCache:
    """The examples of a folder in input, encoded once."""
    dataset = read_parts_dataset(dataset_folder(folder), pose)
    samples = own_folder(os.path.join(folder_paths.get_output_directory(), SAMPLES), name)
    cache, skipped = encode_parts(
        dataset.examples, dataset.held_out[:VALIDATED], samples, encoders, preparation, progress_bar()
    )
    report = [describe_parts_dataset(dataset), *describe_skipped(skipped, dataset.folder)]
    logging.info("%s: %s", NODE, "\n".join(report))
    return cache


def train(
    node: type[io.ComfyNode], model: ModelPatcher, parts: ManagedParts2Whole | None, vae, cache: PartsCache,
    recipe: PartsRecipe, settings: RunSettings, width: int,
) -> Path:
    """Train or resume; returns the file of the decoupled attention. Cancel leaves a checkpoint.

    Args:
        width: of the image tokens.
    """
    # Imported here, because accelerate and diffusers take seconds to import.
    from ...pit.parts2whole.training.samples import sample_sheet
    from ...pit.parts2whole.training.step import WholeModel
    from ...pit.parts2whole.training.task import PartsTask
    from ...pit.training.launch import data_parallel, for_device
    from ...pit.training.trainer import Trainer

    # Left to itself, accelerate takes a GPU even if ComfyUI was started with --cpu.
    accelerator = data_parallel(comfy.model_management.get_torch_device().type == "cpu")
    recipe = for_device(recipe, accelerator.device)
    whole = WholeModel(parts_of(model, parts, settings.seed, width))
    task = PartsTask(whole, cache, recipe, settings, model.model.latent_format.scale_factor)
    trainer = Trainer(task, recipe, settings, accelerator)

    def decode(latents: Tensor) -> list[Image.Image]:
        # Back in ComfyUI's models, which expect inference mode.
        with torch.inference_mode():
            return to_pil(vae.decode(latents))

    def draw(trained: nn.Module, device: torch.device) -> Image.Image:
        with trainer.autocast():
            return sample_sheet(task, trained, device, decode)

    return run(node, trainer, draw)
