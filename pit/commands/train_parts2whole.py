"""`python -m pit train-parts2whole`, on its own or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from ..files.pictures import describe_skipped
from ..parts2whole.files import Parts2Whole
from ..parts2whole.training.base import Encoders, starting_parts
from ..parts2whole.training.cache import SIZE, PartsCache, Preparation, encode_parts
from ..parts2whole.training.layout import POSE, describe_parts_dataset, read_parts_dataset
from ..parts2whole.training.recipes import PARTS_CHOICES, PRESETS, VALIDATED
from ..parts2whole.training.samples import sample_sheet
from ..parts2whole.training.step import WholeModel
from ..parts2whole.training.task import PartsTask
from ..training.command_line import (
    add_recipe_arguments,
    add_run_arguments,
    recipe_of,
    run_settings,
    run_training,
)
from ..training.launch import data_parallel, for_device
from ..training.recipes import CHOICES
from ..training.trainer import Trainer

ENCODED = "encoded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: folders, models, how to prepare pictures, a preset, every setting of it."""
    add = parser.add_argument
    add("dataset", type=Path, help="folder with train.jsonl and the pictures that it names")
    add_run_arguments(parser, save_every=500, validate_every=500)
    add("--start-from", type=Path, metavar="FOLDER", help="Parts2Whole to train further")
    add("--unet", type=Path, metavar="FILE",
        help="or, for a new one, the UNet of a Stable Diffusion 1.5 as diffusers saves it, or its folder")
    add("--vae", type=Path, required=True, metavar="FILE", help="its VAE, likewise")
    add("--text", type=Path, required=True, metavar="FOLDER", help="its text encoder, with config.json")
    add("--vision", type=Path, required=True, metavar="FILE",
        help="CLIP ViT-L/14 with its projection: a file, or a folder with config.json")
    add("--width", type=int, default=SIZE, help="of the pictures, a multiple of 8 (default: %(default)s)")
    add("--height", type=int, default=SIZE, help="likewise (default: %(default)s)")
    add("--variants", type=int, default=4, help="crops of each picture (default: %(default)s)")
    add("--pose", default=POSE, help="which of the poses is learned (default: %(default)s)")
    add_recipe_arguments(parser, PRESETS, CHOICES | PARTS_CHOICES)


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    kept: list[Encoders] = []
    return run_training(
        args, lambda given: begin(given, kept), "train-parts2whole", lambda trainer: draw(trainer, kept[0])
    )


def begin(args: argparse.Namespace, kept: list[Encoders]) -> Trainer:
    """The trainer that the flags ask for; what is not encoded yet is encoded first.

    Args:
        kept: takes the encoders, for the pictures of validations.
    Raises:
        ValueError, OSError: something given cannot be used, or does not fit the rest.
    """
    recipe, settings, accelerator = recipe_of(args, PRESETS), run_settings(args), data_parallel(args.cpu)
    # Checked before the encoding, which can take long.
    recipe.check()
    parts, stamp = starting_parts(args.start_from, args.unet, args.seed)
    cache = encoded(args, accelerator, parts, kept)
    recipe, settings = for_device(recipe, accelerator.device), replace(settings, started_from=stamp)
    return Trainer(PartsTask(WholeModel(parts), cache, recipe, settings), recipe, settings, accelerator)


def encoded(
    args: argparse.Namespace, accelerator: Accelerator, parts: Parts2Whole, kept: list[Encoders]
) -> PartsCache:
    """The examples, encoded once by the first process."""
    main = accelerator.is_main_process
    dataset = read_parts_dataset(args.dataset, args.pose)
    if main:
        print(describe_parts_dataset(dataset))
    kept.append(Encoders(args.vae, args.text, args.vision, accelerator.device))
    kept[0].check(parts)
    preparation = Preparation(args.width, args.height, args.variants, args.seed)
    # The other processes wait, then find everything in the cache.
    with accelerator.main_process_first(), tqdm(total=len(dataset.examples), disable=not main) as bar:
        cache, skipped = encode_parts(
            dataset.examples, dataset.held_out[:VALIDATED], args.output / ENCODED, kept[0].encoders(),
            preparation, lambda done, total: bar.update(done - bar.n),
        )
    if main and skipped:
        print("\n".join(describe_skipped(skipped, args.dataset)))
    kept[0].free()
    return cache


def draw(trainer: Trainer, encoders: Encoders) -> Image.Image:
    """What is made of examples that are held out, beside what should be."""
    with trainer.autocast(), trainer.state.weights_to_use() as model:
        return sample_sheet(trainer.task, model, trainer.device, encoders.decode)
