"""Training part words inside ComfyUI, on the models of the graph."""
from __future__ import annotations

import gc
import logging
import os
from dataclasses import replace
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor, nn

from ...pit.files.pictures import describe_skipped
from ...pit.images import to_pil, to_tensor
from ...pit.packages import LORA_TRAINING, check_packages
from ...pit.partcraft.discovery import PartClusters
from ...pit.partcraft.training.cache import PartCache, Preparation, encode_pictures
from ...pit.partcraft.training.pictures import BY_CLUSTERS, CODES_BY, coding_of, read_pictures
from ...pit.partcraft.training.recipes import PART_CHOICES, PRESETS, RESULT, PartRecipe
from ...pit.training.recipes import RunSettings
from ..bridge.feedback import progress_bar, say_and_log
from ..bridge.folders import own_folder
from ..bridge.noise import trained_schedule
from ..bridge.outputs import Outputs
from ..bridge.picture_folders import input_folder, input_folders, offered_names, why_no_folder
from ..bridge.stamps import patched_weights_of
from ..bridge.training import batch_inputs, last_chart, run, save_every_input, seed_input, steps_input
from .dino import check_width
from .loading import FILES, load_words
from .training_models import NODE, check_base, encoders_of, picture_size, text_encoder_of, unet_of
from .types import CATEGORY, CLIP_VISION_TOOLTIP, CLUSTERS_TOOLTIP, PartClustersType, PartWordsType

ADVICE = "Put a folder of pictures there; 100 or more of one kind of thing are best."
SAMPLES, WRITTEN = "part_word_samples", Outputs()
AS_PRESET = "as the preset says"


def pictures_folder(choice: str) -> Path:
    """The folder of one of the choices; FileNotFoundError for anything else."""
    return input_folder(choice, NODE, ADVICE)


def run_inputs() -> list[io.Input]:
    """What is trained, and how long."""
    return [
        io.Combo.Input(
            "preset", options=list(PRESETS), default=next(iter(PRESETS)),
            tooltip="Everything that the other inputs do not set. The last two are there to compare with.",
        ),
        steps_input(),
        io.Float.Input(
            "learning_rate", default=1e-4, min=0.0, max=1.0, step=1e-6, round=1e-9,
            tooltip="Peak learning rate; 0.0001 as published.",
        ),
        io.Int.Input(
            "size", default=0, min=0, max=2048, step=8,
            tooltip="Pictures become squares of this size; 0 takes what the model draws, 512 or 1024.",
        ),
        save_every_input("a validation and pictures"),
        seed_input("the order of samples, the texts, the noise and the initial weights"),
    ]


def advanced_inputs() -> list[io.Input]:
    """Inputs that few people need to set."""
    return [
        io.Combo.Input(
            "codes_by", options=list(CODES_BY), default=BY_CLUSTERS, optional=True, advanced=True,
            tooltip="What a word tells of a part: the code of its cluster; or the folder that its picture is "
                    "in, as a class with that name, as in the published trainings.",
        ),
        io.Combo.Input(
            "attention_form", options=[AS_PRESET, *PART_CHOICES["attention_form"]], default=AS_PRESET,
            optional=True, advanced=True,
            tooltip="The attention loss as published, or without its constant for parts that a text does not "
                    "name.",
        ),
        io.Boolean.Input(
            "masked", default=False, optional=True, advanced=True,
            tooltip="Learn only from where the parts are that a text names.",
        ),
        io.String.Input(
            "class_name", default="", optional=True, advanced=True,
            tooltip="Stands behind the words in each text, such as bird; empty for nothing.",
        ),
        io.Int.Input(
            "rank", default=4, min=1, max=1024, optional=True, advanced=True,
            tooltip="Rank of the LoRA; 4 as published.",
        ),
        io.Int.Input(
            "variants", default=2, min=1, max=64, optional=True, advanced=True,
            tooltip="Versions of each picture: its middle, and random cuts.",
        ),
        io.Int.Input(
            "map_level", default=4, min=1, max=64, optional=True, advanced=True,
            tooltip="How much smaller than the latent the maps of attention are, a power of 2; 4 as "
                    "published.",
        ),
        *batch_inputs(),
    ]


def recipe_from(preset: str, attention_form: str, batch: int, accumulation: int, learning_rate: float,
                **settings: object) -> PartRecipe:
    """The preset, changed by what the inputs set. Raises ValueError for a setting out of range."""
    chosen = PRESETS[preset]
    recipe = replace(
        chosen, attention_form=chosen.attention_form if attention_form == AS_PRESET else attention_form,
        batch=batch or chosen.batch, accumulation=accumulation or chosen.accumulation,
        learning_rate=learning_rate or chosen.learning_rate, **settings,
    )
    recipe.check()
    return recipe


class TrainPartCraft(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainPartCraft",
            display_name=NODE,
            category=CATEGORY,
            description=(
                "Trains words for the parts of pictures, and a LoRA that draws them. Cancel keeps a "
                "checkpoint, from which the same node resumes when it is queued again."
            ),
            search_aliases=["train part words", "partcraft training", "dreamcreature training"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The SD 1.5 or SDXL model to train on, with its patches."),
                io.Clip.Input("clip", tooltip="Its text encoders."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                PartClustersType.Input("clusters", tooltip=CLUSTERS_TOOLTIP),
                io.Combo.Input(
                    "folder", options=offered_names(input_folders()),
                    tooltip="Folder in input; pictures in the folders directly in it count, too.",
                ),
                io.String.Input(
                    "name", default="my_parts",
                    tooltip=f"Name of the run; the file is models/part_words/NAME/{RESULT}.",
                ),
                *run_inputs(),
                *advanced_inputs(),
            ],
            outputs=[
                PartWordsType.Output(display_name="part_words", tooltip="For Apply PartCraft."),
                io.Image.Output(display_name="chart", tooltip="The loss, as a picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        return why_no_folder(folder, pictures_folder) or True

    @classmethod
    def fingerprint_inputs(cls, name: str | None, **_: object) -> int:
        return 0 if name is None else WRITTEN.fingerprint(own_folder(FILES.folder_to_write(), name) / RESULT)

    @classmethod
    def execute(
        cls, model: ModelPatcher, clip: CLIP, vae: VAE, clip_vision, clusters: PartClusters, folder: str,
        name: str, preset: str, steps: int, learning_rate: float, size: int, save_every: int, seed: int,
        codes_by: str = BY_CLUSTERS, attention_form: str = AS_PRESET, masked: bool = False,
        class_name: str = "", rank: int = 4, variants: int = 2, map_level: int = 4, batch: int = 0,
        accumulation: int = 0,
    ) -> io.NodeOutput:
        check_packages(NODE, LORA_TRAINING)
        names = check_base(model, clip)
        check_width(NODE, clip_vision, clusters.coarse.shape[1])
        run_folder = own_folder(FILES.folder_to_write(), name)
        recipe = recipe_from(
            preset, attention_form, batch, accumulation, learning_rate, steps=steps, rank=rank,
            masked=masked, class_name=class_name.strip(), map_level=map_level,
        )
        preparation = Preparation(
            size or picture_size(model, names), variants, recipe.flips, seed, vae.spacial_compression_encode()
        )
        cache = encoded(cls, model, vae, clip_vision, clusters, folder, name, codes_by, preparation)
        # After the encoding, which needs the models, and before their weights are read below, since unloading
        # also takes patches out of them again.
        comfy.model_management.unload_all_models()
        stamp = patched_weights_of(model) + patched_weights_of(clip.patcher)
        settings = RunSettings(run_folder, seed, save_every, save_every, started_from=stamp)
        try:
            # ComfyUI runs nodes in inference mode, in which weights silently get no gradients.
            with torch.inference_mode(False):
                path = train(cls, model, clip, vae, names, cache, recipe, settings)
        finally:
            gc.collect()
            comfy.model_management.soft_empty_cache()
        words = load_words(path)
        WRITTEN.keep(path)
        chart = to_tensor([last_chart(run_folder)])
        return io.NodeOutput(words, chart, ui=ui.PreviewImage(chart, cls=cls))


def encoded(
    node: type[io.ComfyNode], model: ModelPatcher, vae: VAE, clip_vision, clusters: PartClusters, folder: str,
    name: str, codes_by: str, preparation: Preparation,
) -> PartCache:
    """The pictures of a folder in input with the masks and codes of their parts, worked out once."""
    pictures = read_pictures(pictures_folder(folder))
    coding = coding_of(clusters, pictures, codes_by)
    samples = own_folder(os.path.join(folder_paths.get_output_directory(), SAMPLES), name)
    cache, skipped = encode_pictures(
        pictures, samples, encoders_of(model, vae, clip_vision), clusters, coding, preparation, progress_bar()
    )
    report = [*pictures.problems, *describe_skipped(skipped, pictures.folder)]
    logging.info("%s: %s", NODE, "\n".join([f"{len(cache.names)} pictures", *report]))
    if report:
        say_and_log(node, "\n".join(report))
    return cache


def train(
    node: type[io.ComfyNode], model: ModelPatcher, clip: CLIP, vae: VAE, names: list[str], cache: PartCache,
    recipe: PartRecipe, settings: RunSettings,
) -> Path:
    """Train or resume; returns the file of the words. Cancel leaves a checkpoint."""
    # Imported here, because accelerate and diffusers take seconds to import.
    from ...pit.partcraft.training.painter import PartPainter, new_mapper
    from ...pit.partcraft.training.samples import sample_sheet
    from ...pit.partcraft.training.task import PartTask
    from ...pit.partcraft.training.texts import clip_tokens
    from ...pit.training.launch import data_parallel, for_device
    from ...pit.training.trainer import Trainer

    # Left to itself, accelerate takes a GPU even if ComfyUI was started with --cpu.
    accelerator = data_parallel(comfy.model_management.get_torch_device().type == "cpu")
    recipe = for_device(recipe, accelerator.device)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    encoders = [text_encoder_of(clip, name) for name in names]
    parts = len(cache.coding.vocabulary.parts)
    tokens = clip_tokens(parts, len(encoders))
    mapper = new_mapper(parts, cache.coding.count, encoders, recipe.projections, settings.seed)
    painter = PartPainter(unet_of(model, dtype), encoders, mapper, tokens.words, recipe.map_level)
    task = PartTask(painter, tokens, cache, recipe, settings, trained_schedule(model))
    trainer = Trainer(task, recipe, settings, accelerator)

    def decode(latents: Tensor) -> list[Image.Image]:
        # Back in ComfyUI's models, which expect inference mode and latents in the scale of the VAE.
        with torch.inference_mode():
            return to_pil(vae.decode(model.model.process_latent_out(latents)))

    def draw(trained: nn.Module, device: torch.device) -> Image.Image:
        with trainer.autocast():
            return sample_sheet(task, trained, device, decode)

    return run(node, trainer, draw)
