"""Encoding a dataset once and training an IP-Prior on it, inside ComfyUI."""
from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ...pit.files.known import first_of
from ...pit.files.pictures import describe_skipped
from ...pit.images import to_tensor
from ...pit.messages import quoted, shortened
from ...pit.packages import TRAINING as TRAINING_PACKAGES
from ...pit.packages import check_packages
from ...pit.piece_it_together.training.augment import Augmentation
from ...pit.piece_it_together.training.dataset import Dataset
from ...pit.piece_it_together.training.encode import encode_dataset
from ...pit.piece_it_together.training.recipes import PRESETS, RESULT, PriorRecipe, Sizes, Trained
from ...pit.training.extras import Extras
from ...pit.training.recipes import RunSettings
from ..bridge.feedback import progress_bar, told
from ..bridge.folders import SHOWN, own_folder
from ..bridge.outputs import Outputs
from ..bridge.sockets import IPAdapterType
from ..bridge.training import last_chart, run, save_every_input, seed_input, steps_input
from .datasets import TRAINING
from .encoding import token_encoder
from .loading import PRIORS, load_prior
from .parts import CLIP_VISION_TOOLTIP, IP_ADAPTER_TOOLTIP
from .training_preview import TrainingPreview
from .types import (
    DatasetType,
    ManagedIPAdapter,
    ManagedPrior,
    PreviewType,
    PriorType,
    TokenCacheType,
)

CACHES = "ip_prior_tokens"
NOTHING = "nothing"
WRITTEN = Outputs()


class EncodeDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_EncodeDataset",
            display_name="Encode Dataset",
            category=TRAINING,
            description="Encodes every picture of a dataset once, instead of at every training step.",
            search_aliases=["token cache", "cache embeddings"],
            is_output_node=True,
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                IPAdapterType.Input("ip_adapter", tooltip=IP_ADAPTER_TOOLTIP),
                DatasetType.Input("dataset", tooltip="Targets and their parts."),
                io.String.Input(
                    "name", default="my_tokens",
                    tooltip=f"Name of the cache in output/{CACHES}; new pictures are added to it.",
                ),
                io.Int.Input(
                    "variants", default=4, min=1, max=64,
                    tooltip="Versions of each part: randomly cropped, rotated, scaled, placed, as published.",
                ),
                io.Float.Input(
                    "sketch_probability", default=0.0, min=0.0, max=1.0, step=0.05,
                    tooltip="Fraction of the versions that become line sketches, for priors that read them.",
                ),
                io.Int.Input(
                    "references", default=0, min=0, max=16, advanced=True,
                    tooltip="Number of grids for each target, of four others from the same sub-folder, as "
                            "some published priors know them; 0 for none.",
                ),
                # Without a control that changes it after each run: a cache belongs to one seed.
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=False,
                    advanced=True, tooltip="Determines the random versions.",
                ),
            ],
            outputs=[
                TokenCacheType.Output(
                    display_name="tokens", tooltip="The encoded dataset, for Train IP-Prior.",
                ),
                io.String.Output(display_name="report", tooltip="What was encoded, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str | None, **_: object) -> int:
        return WRITTEN.fingerprint(cache_folder(name)) if name is not None else 0

    @classmethod
    def execute(
        cls, clip_vision, ip_adapter: ManagedIPAdapter, dataset: Dataset, name: str, variants: int,
        sketch_probability: float, references: int, seed: int,
    ) -> io.NodeOutput:
        folder = cache_folder(name)
        done = encode_dataset(
            dataset, folder, token_encoder(clip_vision, ip_adapter), variants=variants, references=references,
            augmentation=Augmentation(sketch_probability=sketch_probability), seed=seed,
            on_progress=progress_bar(),
        )
        lines = [f"{folder}: {done.added} concepts encoded, {done.kept} were there already"]
        report = "\n".join(lines + describe_skipped(done.skipped, dataset.folder))
        if not done.added + done.kept:
            raise ValueError(
                "Encode Dataset expected at least one concept that can be encoded, got none. Replace the "
                f"pictures that were skipped. {report}"
            )
        WRITTEN.keep(folder)
        return io.NodeOutput(folder, report, ui=told(cls, report))


def cache_folder(name: str) -> Path:
    """The folder of the token cache with this name."""
    return own_folder(os.path.join(folder_paths.get_output_directory(), CACHES), name)


def size_inputs() -> list[io.Input]:
    """The sizes of a new prior."""
    return [
        io.Int.Input(
            "hidden_dim", default=2048, min=16, max=8192, step=16, advanced=True,
            tooltip="Width of a new prior; 2048 as published, 192 for the creature models.",
        ),
        io.Int.Input(
            "layers", default=4, min=1, max=64, advanced=True,
            tooltip="Layers of a new prior; 4 or 8 as published.",
        ),
        io.Int.Input(
            "heads", default=32, min=1, max=256, advanced=True,
            tooltip="Attention heads of a new prior; 32 as published.",
        ),
    ]


class TrainPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainPrior",
            display_name="Train IP-Prior",
            category=TRAINING,
            description=(
                "Trains an IP-Prior on a token cache. Cancel keeps a checkpoint, from which the same node "
                "resumes when it is queued again."
            ),
            search_aliases=["train prior", "fine-tune prior", "piece it together training", "finetune"],
            is_output_node=True,
            inputs=[
                TokenCacheType.Input("tokens", tooltip="The token cache of the dataset."),
                io.String.Input(
                    "name", default="my_prior",
                    tooltip="Name of the prior; the file is models/ip_prior/NAME/prior.safetensors.",
                ),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default=next(iter(PRESETS)),
                    tooltip="Everything that the other inputs do not set; recommended learns much faster "
                            "than published.",
                ),
                steps_input(),
                # Zero is no use as a value here, so it stands for the preset's own.
                io.Int.Input(
                    "batch", default=0, min=0, max=4096, tooltip="Samples at once; 0 uses the preset.",
                ),
                io.Float.Input(
                    "learning_rate", default=0.0, min=0.0, max=1.0, step=1e-6, round=1e-9,
                    tooltip="Peak learning rate; 0 uses the preset, which depends on the width of the prior.",
                ),
                io.Combo.Input(
                    "start_from", options=[NOTHING, *PRIORS.listed()], default=NOTHING,
                    tooltip="A prior to train further; nothing trains a new one from scratch.",
                ),
                save_every_input("a validation and new samples"),
                seed_input("the order of samples, the noise and the initial weights"),
                *size_inputs(),
                PreviewType.Input(
                    "preview", optional=True, tooltip="Shows samples below the loss during training.",
                ),
            ],
            outputs=[
                PriorType.Output(display_name="prior", tooltip="The trained prior, for IP-Prior Sample."),
                io.Image.Output(display_name="chart", tooltip="The loss, as a picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, start_from: str | None) -> bool | str:
        # Asked of the list, which also keeps a name from leading out of the model folders. None is a name
        # that comes over a link.
        if start_from in (None, NOTHING) or PRIORS.offered(start_from) is not None:
            return True
        found = first_of(PRIORS.listed(), SHOWN) or "no file"
        return shortened(
            f"Train IP-Prior expected start_from to be {NOTHING!r} or a file from models/ip_prior, got "
            f"{quoted(start_from)}. Found there: {found}. Choose one of these."
        )

    @classmethod
    def fingerprint_inputs(cls, start_from: str | None, name: str | None = None, **_: object) -> object:
        written = 0
        if name is not None:
            written = WRITTEN.fingerprint(own_folder(PRIORS.folder_to_write(), name) / RESULT)
        return [None if start_from in (None, NOTHING) else PRIORS.stamp(start_from), written]

    @classmethod
    def execute(
        cls, tokens: Path, name: str, preset: str, steps: int, batch: int, learning_rate: float,
        start_from: str, save_every: int, seed: int, hidden_dim: int, layers: int, heads: int,
        preview: TrainingPreview | None = None,
    ) -> io.NodeOutput:
        check_packages("Train IP-Prior", TRAINING_PACKAGES)
        folder = own_folder(PRIORS.folder_to_write(), name)
        settings = RunSettings(folder, seed, save_every, save_every)
        recipe = replace(
            PRESETS[preset], steps=steps, batch=batch or PRESETS[preset].batch,
            learning_rate=learning_rate or PRESETS[preset].learning_rate,
        )
        start: Sizes | Trained = Sizes(hidden_dim, layers, heads)
        if start_from != NOTHING:
            start = Trained(PRIORS.path(start_from))
        # The trainer takes its memory without ComfyUI's knowledge, so there has to be room before it starts.
        comfy.model_management.unload_all_models()
        try:
            # ComfyUI runs nodes in inference mode, in which weights silently get no gradients.
            with torch.inference_mode(False):
                path = train(cls, tokens, start, recipe, settings, preview)
        finally:
            # Also after Cancel and errors: whatever the trainer held in reference cycles would stay on the
            # GPU, and torch would keep what is free, until some later time.
            gc.collect()
            comfy.model_management.soft_empty_cache()
        # Read back from the file, so that this run and every later one use the same weights.
        prior = load_prior(path, f"{folder.name}/{path.name}")
        WRITTEN.keep(path)
        extras = Extras()
        samples = None if preview is None else extras.attempt("samples", lambda: samples_of(prior, preview))
        chart = to_tensor([last_chart(folder, samples)])
        return io.NodeOutput(prior, chart, ui=ui.PreviewImage(chart, cls=cls))


def train(
    node: type[io.ComfyNode], tokens: Path, start: Sizes | Trained, recipe: PriorRecipe,
    settings: RunSettings, preview: TrainingPreview | None,
) -> Path:
    """Train or resume; returns the file of the prior. Cancel leaves a checkpoint."""
    # Imported here, because accelerate takes seconds to import, which ComfyUI's start would wait for.
    from ...pit.piece_it_together.training.start import begin

    comfy.model_management.throw_exception_if_processing_interrupted()
    # Left to itself, accelerate takes a GPU even if ComfyUI was started with --cpu.
    cpu = comfy.model_management.get_torch_device().type == "cpu"
    trainer = begin(tokens, start, recipe, settings, cpu=cpu)
    if preview is not None:
        preview.check(trainer.task.config.embedding_dim)
    return run(node, trainer, None if preview is None else preview.draw)


def samples_of(prior: ManagedPrior, preview: TrainingPreview) -> Image.Image:
    """What the preview shows of a trained prior."""
    comfy.model_management.load_models_gpu([prior.patcher])
    return preview.draw(prior.patcher.model, prior.patcher.load_device)
