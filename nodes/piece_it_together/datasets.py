"""From pictures to a dataset to train on: cutting parts, reading folders, writing prompts."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...pit.files.lock import only_process
from ...pit.files.pictures import picture_name
from ...pit.files.whole import clean_leftovers
from ...pit.images import to_pil, to_tensor
from ...pit.piece_it_together.training.dataset import Dataset, dataset_sheet, describe, read_dataset
from ...pit.piece_it_together.training.make_parts import make_parts, save_concept
from ...pit.piece_it_together.training.part_rules import DEFAULT_RULES, PartRules, UnevenGroundError
from ...pit.piece_it_together.training.prompts import DOMAINS, dataset_prompts, picture_seeds
from ..bridge.feedback import progress_bar
from ..bridge.folders import file_stamp, own_folder
from ..bridge.outputs import Outputs
from ..bridge.picture_folders import (
    MADE_DATASETS,
    folders_in,
    offered_names,
    one_of_folders,
    why_no_folder,
)
from .types import CATEGORY, DatasetType

TRAINING = f"{CATEGORY}/training"
PAIRING = (
    "To cut several parts out of each picture, send a list of single pictures, such as Load Image (from "
    "Folder) gives, through the segmenter, so that each picture comes with its own masks."
)
NAME_TOOLTIP = f"Name of the dataset in output/{MADE_DATASETS}. New pictures are added to an existing one."


WRITTEN = Outputs()


def dataset_folder(name: str) -> Path:
    """The folder of the dataset with this name."""
    # In output, where users look for what their graphs have written.
    return own_folder(os.path.join(folder_paths.get_output_directory(), MADE_DATASETS), name)


def dataset_fingerprint(name: object) -> int:
    """Changes if the dataset of this name is not as a node has left it."""
    # None for a name that comes from another node; what is wrong with another one, the node itself tells.
    return WRITTEN.fingerprint(dataset_folder(name)) if isinstance(name, str) else 0


def dataset_folders() -> Iterator[tuple[str, Path]]:
    """What Load Dataset offers: the datasets that nodes have written, and the folders in input."""
    output = os.path.join(folder_paths.get_output_directory(), MADE_DATASETS)
    return folders_in({"output": output, "input": folder_paths.get_input_directory()})


def chosen_folder(
    choice: str, node: str = "Load Dataset",
    advice: str = "Put a folder of pictures with their parts into ComfyUI's input folder, or make one with "
                  "Make Parts.",
) -> Path:
    """The folder of one of the choices. Raises FileNotFoundError, with advice, for anything else."""
    expected = f"{node} expected a folder in input or in output/{MADE_DATASETS}"
    return one_of_folders(choice, dataset_folders(), expected, advice)


def shown(dataset: Dataset, cls: type[io.ComfyNode], *more: str) -> io.NodeOutput:
    """The outputs of a node that makes a dataset: the dataset, its contact sheet, and its report."""
    WRITTEN.keep(dataset.folder)
    sheet = to_tensor([dataset_sheet(dataset)])
    report = "\n".join([describe(dataset), *more])
    return io.NodeOutput(dataset, sheet, report, ui=ui.PreviewImage(sheet, cls=cls))


def dataset_outputs() -> list[io.Output]:
    return [
        DatasetType.Output(display_name="dataset", tooltip="The dataset, for Encode Dataset."),
        io.Image.Output(display_name="sheet", tooltip="Up to eight concepts of it and their parts."),
        io.String.Output(display_name="report", tooltip="What is in it, and what was left out and why."),
    ]


def masks_of_pictures(images: list[Tensor], masks: list[Tensor] | None) -> list[Tensor | None]:
    """The masks `[N, H, W]` bool of every picture in a list of batches; None for each if none are given.

    A list of masks pairs with a list of pictures; a batch of pictures takes one mask each. Raises ValueError
    if it is not clear which mask belongs to which picture.
    """
    # SAM3 Detect joins the masks of a whole batch without saying how many belong to each picture. So several
    # masks per picture can only be told apart in a list, which has one entry for each picture.
    if masks is None:
        return [None] * sum(len(batch) for batch in images)
    if len(masks) != len(images):
        raise ValueError(
            f"Make Parts expected one set of masks for each of {len(images)} pictures, got {len(masks)}. "
            f"{PAIRING}"
        )
    paired = []
    for batch, given in zip(images, masks, strict=True):
        given = given.reshape(-1, *given.shape[-2:])
        if len(batch) > 1 and len(given) != len(batch):
            raise ValueError(
                f"Make Parts expected one mask for each picture of a batch of {len(batch)}, got "
                f"{len(given)}. {PAIRING}"
            )
        found = given.cpu() > 0.5
        paired += [found] if len(batch) == 1 else [mask[None] for mask in found]
    return paired


class MakeParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_MakeParts",
            display_name="Make Parts",
            category=TRAINING,
            description="Cuts pictures into parts and saves both as a dataset for an IP-Prior to learn from.",
            search_aliases=[
                "segment parts", "dataset parts", "piece it together dataset", "cut into parts", "sam",
            ],
            # Lists come in whole, so that pictures can be paired with their masks and reported on together.
            # The price: every input is a list, settings too.
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Pictures of whole objects, as a list or a batch."),
                io.Mask.Input(
                    "masks", optional=True,
                    tooltip="The parts of each picture, such as SAM3 Detect gives with individual masks. "
                            "Without masks, parts are found by color, which needs a plain background.",
                ),
                io.String.Input("name", default="my_parts", tooltip=NAME_TOOLTIP),
                io.Float.Input(
                    "smallest", default=DEFAULT_RULES.smallest, min=0.0, max=1.0, step=0.005,
                    tooltip="Smallest fraction of the picture that a part may cover; 0.015 as published.",
                ),
                io.Float.Input(
                    "largest", default=DEFAULT_RULES.largest, min=0.0, max=1.0, step=0.05,
                    tooltip="Largest fraction of the picture that a part may cover; 0.3 as published.",
                ),
                io.Int.Input(
                    "most", default=DEFAULT_RULES.most, min=1, max=64, tooltip="Maximum parts per picture.",
                ),
                io.Boolean.Input(
                    "drop_largest", default=False, advanced=True,
                    tooltip="Leave out the largest mask, which is the whole object if a segmenter finds "
                            "everything.",
                ),
                io.Boolean.Input(
                    "drop_border", default=False, advanced=True,
                    tooltip="Leave out masks that touch the picture's border.",
                ),
            ],
            outputs=dataset_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, name: object, **_: object) -> int:
        return dataset_fingerprint(name[0] if isinstance(name, list) and name else name)

    @classmethod
    def execute(
        cls, images: list[Tensor], name: list[str], smallest: list[float], largest: list[float],
        most: list[int], drop_largest: list[bool], drop_border: list[bool], masks: list[Tensor] | None = None,
    ) -> io.NodeOutput:
        folder = dataset_folder(name[0])
        pictures = [picture for batch in images for picture in to_pil(batch)]
        rules = PartRules(smallest[0], largest[0], most[0], drop_largest[0], drop_border[0])
        # A picture that cannot be used is reported, not raised: one of a thousand must not end the run.
        left_out, done = Counter(), progress_bar()
        pairs = list(zip(pictures, masks_of_pictures(images, masks), strict=True))
        with only_process(folder):
            clean_leftovers(folder / "target")
            for number, (picture, found) in enumerate(pairs):
                left_out[save_parts(folder, picture, found, rules)] += 1
                done(number + 1, len(pictures))
        reasons = [f"left out: {count}, {why}" for why, count in left_out.items() if why]
        if not left_out[None]:
            raise ValueError(
                f"Make Parts expected parts in at least one of {len(pictures)} pictures, got none "
                f"({'; '.join(reasons)}). Connect the masks of a segmenter, or widen the range."
            )
        return shown(read_dataset(folder), cls, *reasons)


def save_parts(folder: Path, picture: Image.Image, masks: Tensor | None, rules: PartRules) -> str | None:
    """Add a picture and its parts to a dataset; returns None, or why the picture was left out.

    Raises ValueError for masks of another size.
    """
    try:
        parts = make_parts(picture, None if masks is None else masks.numpy(), rules)
    except UnevenGroundError:
        return "without masks and not on plain ground"
    if not parts:
        return f"without a part that covers {rules.smallest:g} to {rules.largest:g} of the picture"
    # Named by its pixels: the same picture replaces itself when the graph is queued again.
    save_concept(folder, picture_name(picture), picture, parts)
    return None


class LoadDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadDataset",
            display_name="Load Dataset",
            category=TRAINING,
            description="Reads a folder of targets and their parts, and shows what is in it.",
            search_aliases=["dataset folder", "piece it together dataset"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "folder", options=offered_names(dataset_folders()),
                    tooltip="A folder in input, or one that Make Parts has written: target/NAME.png with "
                            "parts/NAME/*.png, or named as published.",
                ),
            ],
            outputs=dataset_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None) -> object:
        if folder is None:
            return None
        # Of the files, not of the folder: its time does not change with pictures in its sub-folders.
        found = read_dataset(chosen_folder(folder))
        files = [path for concept in found.concepts for path in (concept.target, *concept.parts)]
        return [(str(path), file_stamp(path)) for path in files]

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        return why_no_folder(folder, chosen_folder) or True

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        return shown(read_dataset(chosen_folder(folder)), cls)


class DatasetPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_DatasetPrompts",
            display_name="Dataset Prompts",
            category=TRAINING,
            description="Writes prompts for a text-to-image model to make a dataset with, one per picture.",
            search_aliases=["random prompts", "word lists", "generate dataset"],
            inputs=[
                io.Combo.Input(
                    "domain", options=list(DOMAINS), default=DOMAINS[0], tooltip="What the pictures show.",
                ),
                io.Int.Input("count", default=16, min=1, max=10_000, tooltip="How many prompts to write."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Prompt i and its own seed depend only on this seed and i.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="A prompt for each picture, for CLIP Text Encode.",
                ),
                io.Int.Output(
                    display_name="seeds",
                    is_output_list=True,
                    tooltip="A seed for each picture, for KSampler.",
                ),
            ],
        )

    @classmethod
    def execute(cls, domain: str, count: int, seed: int) -> io.NodeOutput:
        return io.NodeOutput(dataset_prompts(domain, count, seed), picture_seeds(count, seed))
