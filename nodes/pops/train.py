"""Training an operator inside ComfyUI, on a folder of pictures, with the encoders of the graph."""
from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.files.known import first_of
from ...pit.files.pictures import describe_skipped
from ...pit.images import to_tensor
from ...pit.messages import quoted, shortened
from ...pit.packages import TRAINING as TRAINING_PACKAGES
from ...pit.packages import check_packages
from ...pit.pops.modes import MODES, WORDS
from ...pit.pops.training.cache import OperatorCache, OperatorEncoders, encode_operator_dataset
from ...pit.pops.training.layouts import describe_operator_dataset, read_operator_dataset
from ...pit.pops.training.recipes import PRESETS, RESULT, OperatorRecipe, Sizes, Trained
from ...pit.training.recipes import RunSettings
from ..bridge.feedback import progress_bar
from ..bridge.folders import SHOWN, ModelFiles, own_folder, same_but_for_separators
from ..bridge.outputs import Outputs
from ..bridge.picture_folders import (
    MADE_DATASETS,
    folders_in,
    offered_names,
    one_of_folders,
    why_no_folder,
)
from ..bridge.training import last_chart, run, save_every_input, seed_input, steps_input
from .embeddings import check_encoder
from .loading import BASES, NO_BASE, OPERATORS, load_operator
from .types import CATEGORY, OperatorType
from .words import encoded_words

NODE = "Train pOps Operator"
CACHES, NOTHING = "pops_embeddings", "nothing"
DATASETS = "pops_datasets"  # in output, for what graphs save as pictures to learn from
WRITTEN = Outputs()
PRIORS = "kandinsky_prior/"  # before the names of priors among what to start from
ADVICE = "Put the pictures into a folder in ComfyUI's input folder, as the help page describes."


def starts() -> dict[str, tuple[ModelFiles, str] | None]:
    """What a training may start from, by the names that are shown."""
    operators = {name: (OPERATORS, name) for name in [*OPERATORS.listed(), *OPERATORS.shipped]}
    return {NOTHING: None, **operators, **{f"{PRIORS}{name}": (BASES, name) for name in BASES.listed()}}


def start_file(choice: str) -> Path | None:
    """The file of one of the starts; None for nothing. Raises FileNotFoundError for anything else."""
    # Looked up, not joined to a path: whatever a graph names, it cannot lead out of the model folders.
    known = starts()
    here = same_but_for_separators(choice, known)
    if here is None:
        found = first_of(list(known)[1:], SHOWN) or "no file"
        raise FileNotFoundError(shortened(
            f"{NODE} expected start_from to be {NOTHING!r} or a file from models/pops or "
            f"models/kandinsky_prior, got {quoted(choice)}. Found there: {found}. Choose one of these."
        ))
    found = known[here]
    return None if found is None else found[0].path(found[1])


def picture_folders() -> Iterator[tuple[str, Path]]:
    """The folders that are offered: those in input, those that graphs have saved, and those of Make Parts."""
    # One level alone: below it may be a folder for each object.
    output = folder_paths.get_output_directory()
    return folders_in({
        "input": folder_paths.get_input_directory(), "output": os.path.join(output, DATASETS),
        "parts": os.path.join(output, MADE_DATASETS),
    })


def pictures_folder(choice: str) -> Path:
    """The folder of one of the choices; FileNotFoundError for anything else."""
    expected = f"{NODE} expected a folder in input, in output/{DATASETS} or of Make Parts"
    return one_of_folders(choice, picture_folders(), expected, ADVICE)


def operator_encoders(clip_vision, clip) -> OperatorEncoders:
    """The encoders of the graph. Raises ValueError for an image encoder without CLIP's projection."""
    check_encoder(NODE, clip_vision)

    def pictures(pixels: Tensor) -> Tensor:
        comfy.model_management.load_models_gpu([clip_vision.patcher])
        return clip_vision.model(pixel_values=pixels.to(clip_vision.load_device))[2].float().cpu()

    def words(lines: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        states, embeddings = encoded_words(clip, lines, NODE, cut=True)
        return [state.cpu() for state in states], embeddings.cpu()

    config = clip_vision.config
    name = f"{config['model_type']} of width {config['hidden_size']}"
    return OperatorEncoders(name, clip_vision.image_size, pictures, None if clip is None else words)


def recipe_inputs() -> list[io.Input]:
    """What is set of the recipe."""
    return [
        io.Combo.Input(
            "preset", options=list(PRESETS), default="recommended",
            tooltip="Everything that the other inputs do not set.",
        ),
        steps_input(),
        # Zero is no use as a value here, so it stands for the preset's own.
        io.Int.Input(
            "batch", default=0, min=0, max=4096, tooltip="Samples at once; 0 uses the preset.",
        ),
        io.Float.Input(
            "learning_rate", default=0.0, min=0.0, max=1.0, step=1e-6, round=1e-9,
            tooltip="Peak learning rate; 0 uses the preset.",
        ),
    ]


def size_inputs() -> list[io.Input]:
    """The sizes of a new operator, and how many versions of its pictures it sees."""
    return [
        io.Int.Input(
            "versions", default=4, min=1, max=64, advanced=True,
            tooltip="Versions of what is random in a picture: patches, places, backgrounds, words.",
        ),
        io.Int.Input(
            "hidden_dim", default=2048, min=16, max=8192, step=16, advanced=True,
            tooltip="Width of a new operator; 2048 as published.",
        ),
        io.Int.Input(
            "layers", default=20, min=1, max=64, advanced=True,
            tooltip="Layers of a new operator; 20 as published.",
        ),
        io.Int.Input(
            "heads", default=32, min=1, max=256, advanced=True,
            tooltip="Attention heads of a new operator; 32 as published.",
        ),
    ]


class TrainOperator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainOperator",
            display_name=NODE,
            category=CATEGORY,
            description=(
                "Trains a pOps operator on a folder of pictures. Cancel keeps a checkpoint, from which the "
                "same node resumes when it is queued again."
            ),
            search_aliases=["pops training", "train operator", "fine-tune operator"],
            is_output_node=True,
            inputs=[
                io.ClipVision.Input(
                    "clip_vision", tooltip="The encoder that the operator will work with: ViT-bigG.",
                ),
                io.Combo.Input(
                    "folder", options=offered_names(picture_folders()),
                    tooltip="The pictures, in the layout of the kind of operator: see the help page.",
                ),
                io.Combo.Input(
                    "kind", options=list(MODES), default=next(iter(MODES)),
                    tooltip="What the operator is to do; clothes composes any parts to a whole.",
                ),
                io.String.Input(
                    "name", default="my_operator",
                    tooltip=f"Name of the operator; the file is models/pops/NAME/{RESULT}.",
                ),
                *recipe_inputs(),
                io.Combo.Input(
                    "start_from", options=list(starts()), default=NOTHING,
                    tooltip="An operator or the prior of Kandinsky 2.2 to train further; nothing trains a "
                            "new one from scratch.",
                ),
                io.Combo.Input(
                    "base", options=[*BASES.listed(), NO_BASE],
                    tooltip="The prior with the statistics that a published operator in start_from lacks.",
                ),
                save_every_input("a validation"),
                seed_input("versions, the order of samples, the noise and the initial weights"),
                *size_inputs(),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The CLIP of SDXL, for words: only instruct needs it.",
                ),
            ],
            outputs=[
                OperatorType.Output(
                    display_name="operator", tooltip="The trained operator, for the pOps nodes.",
                ),
                io.Image.Output(display_name="chart", tooltip="The loss, as a picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None, start_from: str | None, base: str | None) -> bool | str:
        # None is a name that comes over a link.
        missing = why_no_folder(folder, pictures_folder) or why_no_folder(start_from, start_file)
        return missing or (base != NO_BASE and BASES.why_missing(base)) or True

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: object) -> int:
        return 0 if name is None else WRITTEN.fingerprint(run_folder(name) / RESULT)

    @classmethod
    def execute(
        cls, clip_vision, folder: str, kind: str, name: str, preset: str, steps: int, batch: int,
        learning_rate: float, start_from: str, base: str, save_every: int, seed: int, versions: int,
        hidden_dim: int, layers: int, heads: int, clip=None,
    ) -> io.NodeOutput:
        check_packages(NODE, TRAINING_PACKAGES)
        if MODES[kind].takes == WORDS and clip is None:
            raise ValueError(f"{NODE} expected a CLIP for {kind}, got none. Connect that of an SDXL model.")
        chosen, path = PRESETS[preset], start_file(start_from)
        recipe = replace(
            chosen, steps=steps, batch=batch or chosen.batch,
            learning_rate=learning_rate or chosen.learning_rate,
        )
        start: Sizes | Trained = Sizes(hidden_dim, layers, heads)
        if path is not None:
            start = Trained(path, None if base == NO_BASE else BASES.path(base))
        settings = RunSettings(run_folder(name), seed, save_every, save_every)
        encoders = operator_encoders(clip_vision, clip)
        cache = encoded(pictures_folder(folder), kind, encoders, versions, seed)
        result = train(cls, cache, start, recipe, settings)
        # Read back from the file, so that this run and every later one use the same weights.
        operator = load_operator(result, f"{result.parent.name}/{result.name}", mode=kind)
        WRITTEN.keep(result)
        chart = to_tensor([last_chart(result.parent)])
        return io.NodeOutput(operator, chart, ui=ui.PreviewImage(chart, cls=cls))


def run_folder(name: str) -> Path:
    """The folder of the run with this name."""
    return own_folder(OPERATORS.folder_to_write(), name)


def encoded(
    folder: Path, mode: str, encoders: OperatorEncoders, versions: int, seed: int
) -> OperatorCache:
    """The embeddings of a dataset; what any run has encoded is not encoded again."""
    dataset = read_operator_dataset(folder, mode)
    # One folder for all runs: its files are named by what they are made of.
    place = Path(folder_paths.get_output_directory(), CACHES)
    cache, skipped = encode_operator_dataset(
        dataset, place, encoders, versions=versions, seed=seed, on_progress=progress_bar()
    )
    report = [describe_operator_dataset(dataset), *describe_skipped(skipped, folder)]
    logging.info("%s: %s", NODE, "\n".join(report))
    return cache


def train(
    node: type[io.ComfyNode], cache: OperatorCache, start: Sizes | Trained, recipe: OperatorRecipe,
    settings: RunSettings,
) -> Path:
    """Train or resume; returns the file of the operator. Cancel leaves a checkpoint."""
    # Imported here, because accelerate takes seconds to import, which ComfyUI's start would wait for.
    from ...pit.pops.training.start import begin

    # The trainer takes its memory without ComfyUI's knowledge, so there has to be room before it starts.
    comfy.model_management.unload_all_models()
    comfy.model_management.throw_exception_if_processing_interrupted()
    # Left to itself, accelerate takes a GPU even if ComfyUI was started with --cpu.
    cpu = comfy.model_management.get_torch_device().type == "cpu"
    try:
        # ComfyUI runs nodes in inference mode, in which weights silently get no gradients.
        with torch.inference_mode(False):
            return run(node, begin(cache, start, recipe, settings, cpu=cpu), None)
    finally:
        # Also after Cancel and errors: whatever the trainer held in reference cycles would stay on the GPU.
        gc.collect()
        comfy.model_management.soft_empty_cache()
