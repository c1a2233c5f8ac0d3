"""Training an Embedding Optimizer inside ComfyUI, on the models of the graph."""
from __future__ import annotations

import gc
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.sd
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor, nn

from ...pit.files.pictures import describe_skipped
from ...pit.files.weights import read_state, write_state
from ...pit.images import to_pil, to_tensor
from ...pit.object_insertion.condition import AS_PUBLISHED, CROP, FITS, PIXEL_SCALES
from ...pit.object_insertion.embedding_optimizer import LAST
from ...pit.object_insertion.files import load_embedding_optimizer
from ...pit.object_insertion.training.cache import (
    PUBLISHED_SIZE,
    SIZE,
    Preparation,
    TripletCache,
    TripletEncoders,
    encode_triplets,
)
from ...pit.object_insertion.training.recipes import (
    ALONE,
    ATTENTION,
    PRESETS,
    RESULT,
    TRAINS,
    InsertionRecipe,
)
from ...pit.object_insertion.training.start import stamp_of_start, starting_optimizer
from ...pit.object_insertion.training.triplets import EXPECTED, describe_triplets, read_triplets
from ...pit.packages import LORA_TRAINING, check_packages
from ...pit.training.recipes import RunSettings
from ..bridge.feedback import progress_bar
from ..bridge.folders import ModelFiles, own_folder
from ..bridge.noise import trained_schedule
from ..bridge.outputs import Outputs
from ..bridge.picture_folders import input_folder, input_folders, offered_names, why_no_folder
from ..bridge.stamps import patched_weights_of, weights_of
from ..bridge.training import batch_inputs, last_chart, run, save_every_input, seed_input, steps_input
from ..bridge.training_copies import fill_unet
from .encoding import FILES, clip_tokens, load_optimizer
from .models import check_model
from .types import CATEGORY, OptimizerType

if TYPE_CHECKING:
    from ...pit.object_insertion.training.inserter import Inserter

NODE = "Train Embedding Optimizer"
LORAS = ModelFiles("insertion_attention")
SAMPLES = "object_insertion_samples"
NOTHING = "nothing"
WRITTEN = Outputs()


def triplet_folder(choice: str) -> Path:
    """The folder of one of the choices; FileNotFoundError for anything else."""
    advice = f"Put a folder with {EXPECTED} into ComfyUI's input folder."
    return input_folder(choice, NODE, advice)


def check_kind_of_encoder(clip_vision) -> None:
    """Raise ValueError unless this image encoder has CLIP's tokens."""
    if clip_vision.model_type != "clip_vision_model":
        raise ValueError(
            f"{NODE} expected a clip_vision_model as its CLIP_VISION, got a {clip_vision.model_type}. Use "
            "CLIP ViT-L/14."
        )


def encoders_of(vae: VAE, clip_vision, reads: int) -> TripletEncoders:
    """What encodes triplets, from the models of the graph."""
    def tokens(pixels: Tensor) -> Tensor:
        comfy.model_management.load_models_gpu([clip_vision.patcher])
        return clip_tokens(clip_vision, reads, pixels).float().cpu()

    def latents(pictures: Tensor) -> Tensor:
        # ComfyUI's VAE takes [B, H, W, 3] in 0..1, where the trainer has [B, 3, H, W] in -1..1. It only gives
        # the mean of its distribution, so the deviation is set to zero; it is a few thousandths of the mean.
        mean = vae.encode((pictures.movedim(1, -1) + 1) / 2).float().cpu()
        return torch.cat([mean, torch.zeros_like(mean)], dim=1)

    # The same encoder answers otherwise where other hidden states are read.
    models = {
        "VAE": patched_weights_of(vae.patcher), "image encoder": f"{weights_of(clip_vision.patcher)} {reads}",
    }
    return TripletEncoders(models, clip_vision.image_size, tokens, latents)


def inserter_of(model: ModelPatcher, optimizer: nn.Module, dtype: torch.dtype) -> Inserter:
    """An optimizer and the UNet of the graph for the trainer, with its own copy of the patched weights.

    Raises:
        ValueError: the model is not of the kind of Stable Diffusion 1.5.
    """
    # Imported here, because diffusers takes seconds to import.
    from ...pit.object_insertion.training.inserter import Inserter, unet_of_sizes

    unet = unet_of_sizes(model.model.model_config.unet_config)
    # With its patches: the optimizer has to learn under the bias that the published one is used with.
    fill_unet(unet, model, dtype)
    return Inserter(optimizer, unet)


def run_inputs() -> list[io.Input]:
    """What is trained, from what, and how long."""
    return [
        io.Combo.Input(
            "preset", options=list(PRESETS), default=next(iter(PRESETS)),
            tooltip="Everything that the other inputs do not set.",
        ),
        io.Combo.Input(
            "trains", options=list(TRAINS), default=TRAINS[0],
            tooltip="The optimizer alone, as the published code; or with the key and value "
                    "projections of the model's cross-attention, or a LoRA on them.",
        ),
        steps_input(),
        io.Float.Input(
            "learning_rate", default=1e-4, min=0.0, max=1.0, step=1e-6, round=1e-9,
            tooltip="Peak learning rate; 0.0001 as published.",
        ),
        io.Combo.Input(
            "start_from", options=[NOTHING, *FILES.listed()], default=NOTHING,
            tooltip="An Embedding Optimizer to train further; nothing trains a new one.",
        ),
        io.Int.Input(
            "size", default=SIZE, min=64, max=2048, step=8,
            tooltip=f"Scenes and targets become squares of this size; {PUBLISHED_SIZE} as published, "
                    "512 as they are used.",
        ),
        save_every_input("a validation and pictures"),
        seed_input("the order of samples, the noise and the initial weights"),
    ]


def preparation_inputs() -> list[io.Input]:
    """Inputs that few people need to set."""
    return [
        io.Int.Input(
            "rank", default=16, min=1, max=1024, optional=True, advanced=True,
            tooltip="Rank of the LoRA, if one is trained.",
        ),
        *batch_inputs(),
        io.Int.Input(
            "variants", default=4, min=1, max=64, optional=True, advanced=True,
            tooltip="Versions of each triplet: itself, and others cropped, mirrored, turned and distorted as "
                    "published.",
        ),
        io.Combo.Input(
            "fit", options=list(FITS), default=CROP, optional=True, advanced=True,
            tooltip="For objects that are not square, as in Encode Object.",
        ),
        io.Combo.Input(
            "pixel_scale", options=list(PIXEL_SCALES), default=AS_PUBLISHED, optional=True, advanced=True,
            tooltip="As in Encode Object: as the published inference has it, or as its training had it.",
        ),
    ]


class TrainEmbeddingOptimizer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainEmbeddingOptimizer",
            display_name=NODE,
            category=CATEGORY,
            description=(
                "Trains an Embedding Optimizer on triplets of scene, object and both together. Cancel keeps "
                "a checkpoint, from which the same node resumes when it is queued again."
            ),
            search_aliases=["train object insertion", "emb_opt training"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The InstructPix2Pix to train on, with its patches."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                io.ClipVision.Input("clip_vision", tooltip="The image encoder CLIP ViT-L/14."),
                io.Combo.Input(
                    "folder", options=offered_names(input_folders()),
                    tooltip="Folder with metadata.csv as published, or with original_image, object_image and "
                            "target_image.",
                ),
                io.String.Input(
                    "name", default="my_optimizer",
                    tooltip=f"Name of the run; the file is models/object_insertion/NAME/{RESULT}.",
                ),
                *run_inputs(),
                *preparation_inputs(),
            ],
            outputs=[
                OptimizerType.Output(
                    display_name="optimizer", tooltip="The trained optimizer, for Encode Object.",
                ),
                io.Model.Output(display_name="model", tooltip="The trained model, for Insert Object."),
                io.Image.Output(display_name="chart", tooltip="The loss, as a picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None, start_from: str | None) -> bool | str:
        missing = None if start_from in (None, NOTHING) else FILES.why_missing(start_from)
        return why_no_folder(folder, triplet_folder) or missing or True

    @classmethod
    def fingerprint_inputs(cls, start_from: str | None, name: str | None = None, **_: object) -> object:
        written = 0
        if name is not None:
            written = WRITTEN.fingerprint(own_folder(FILES.folder_to_write(), name) / RESULT)
        return [None if start_from in (None, NOTHING) else FILES.stamp(start_from), written]

    @classmethod
    def execute(
        cls, model: ModelPatcher, vae: VAE, clip_vision, folder: str, name: str, preset: str, trains: str,
        steps: int, learning_rate: float, start_from: str, size: int, save_every: int, seed: int,
        rank: int = 16, batch: int = 0, accumulation: int = 0, variants: int = 4, fit: str = CROP,
        pixel_scale: str = AS_PUBLISHED,
    ) -> io.NodeOutput:
        check_packages(NODE, LORA_TRAINING)
        check_model(NODE, model)
        check_kind_of_encoder(clip_vision)
        run_folder = own_folder(FILES.folder_to_write(), name)
        chosen, start = PRESETS[preset], None if start_from == NOTHING else FILES.path(start_from)
        recipe = replace(
            chosen, trains=trains, steps=steps, rank=rank, batch=batch or chosen.batch,
            accumulation=accumulation or chosen.accumulation,
            learning_rate=learning_rate or chosen.learning_rate,
        )
        multiple = vae.spacial_compression_encode()
        preparation = Preparation(size, variants, fit, pixel_scale, seed, multiple)
        cache = encoded(vae, clip_vision, folder, name, start, preparation)
        # After the encoding, which needs the models, and before their weights are read below, since unloading
        # also takes patches out of them again.
        comfy.model_management.unload_all_models()
        stamp = patched_weights_of(model) + stamp_of_start(start)
        settings = RunSettings(run_folder, seed, save_every, save_every, started_from=stamp)
        try:
            # ComfyUI runs nodes in inference mode, in which weights silently get no gradients.
            with torch.inference_mode(False):
                path = train(cls, model, vae, cache, start, recipe, settings)
        finally:
            gc.collect()
            comfy.model_management.soft_empty_cache()
        optimizer, _ = load_optimizer(path, f"{run_folder.name}/{path.name}")
        learned = path.with_name(ATTENTION)
        patched = model if trains == ALONE else with_learned(model, learned, run_folder.name)
        WRITTEN.keep(path)
        chart = to_tensor([last_chart(run_folder)])
        return io.NodeOutput(optimizer, patched, chart, ui=ui.PreviewImage(chart, cls=cls))


def encoded(
    vae: VAE, clip_vision, folder: str, name: str, start: Path | None, preparation: Preparation
) -> TripletCache:
    """The triplets of a folder in input, encoded once."""
    dataset = read_triplets(triplet_folder(folder))
    samples = own_folder(os.path.join(folder_paths.get_output_directory(), SAMPLES), name)
    reads = LAST if start is None else load_embedding_optimizer(start).reads
    cache, skipped = encode_triplets(
        dataset.triplets, samples, encoders_of(vae, clip_vision, reads), preparation, progress_bar()
    )
    report = [describe_triplets(dataset), *describe_skipped(skipped, dataset.folder)]
    logging.info("%s: %s", NODE, "\n".join(report))
    return cache


def train(
    node: type[io.ComfyNode], model: ModelPatcher, vae: VAE, cache: TripletCache, start: Path | None,
    recipe: InsertionRecipe, settings: RunSettings,
) -> Path:
    """Train or resume; returns the file of the optimizer. Cancel leaves a checkpoint."""
    # Imported here, because accelerate and diffusers take seconds to import.
    from ...pit.object_insertion.training.samples import sample_sheet
    from ...pit.object_insertion.training.task import InsertionTask
    from ...pit.training.launch import data_parallel, for_device
    from ...pit.training.trainer import Trainer

    # Left to itself, accelerate takes a GPU even if ComfyUI was started with --cpu.
    accelerator = data_parallel(comfy.model_management.get_torch_device().type == "cpu")
    recipe = for_device(recipe, accelerator.device)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    widths = cache.blank.shape[-1], model.model.model_config.unet_config["context_dim"]
    inserter = inserter_of(model, starting_optimizer(start, *widths, settings.seed), dtype)
    scale = model.model.latent_format.scale_factor
    task = InsertionTask(inserter, cache, recipe, settings, trained_schedule(model), scale)
    trainer = Trainer(task, recipe, settings, accelerator)

    def decode(latents: Tensor) -> list[Image.Image]:
        # Back in ComfyUI's models, which expect inference mode.
        with torch.inference_mode():
            return to_pil(vae.decode(latents))

    def draw(trained: nn.Module, device: torch.device) -> Image.Image:
        with trainer.autocast():
            return sample_sheet(task, trained, device, decode)

    return run(node, trainer, draw)


def with_learned(model: ModelPatcher, path: Path, name: str) -> ModelPatcher:
    """A clone of the model with what was learned of its attention, which ComfyUI's own loader is offered."""
    state, metadata = read_state(path)
    folder = own_folder(LORAS.folder_to_write(), name)
    folder.mkdir(parents=True, exist_ok=True)
    write_state(folder / path.name, state, metadata)
    patched, _ = comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0)
    return patched
