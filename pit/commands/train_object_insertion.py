"""`python -m pit train-object-insertion`, on its own or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from ..files.pictures import describe_skipped
from ..files.whole import sha256_of
from ..object_insertion.condition import AS_PUBLISHED, CROP, FITS, PIXEL_SCALES
from ..object_insertion.files import load_embedding_optimizer
from ..object_insertion.training.base import Encoders, load_unet
from ..object_insertion.training.cache import PUBLISHED_SIZE, SIZE, Preparation, TripletCache, encode_triplets
from ..object_insertion.training.inserter import Inserter
from ..object_insertion.training.recipes import INSERTION_CHOICES, PRESETS
from ..object_insertion.training.samples import sample_sheet
from ..object_insertion.training.start import stamp_of_start, starting_optimizer
from ..object_insertion.training.task import InsertionTask
from ..object_insertion.training.triplets import describe_triplets, read_triplets
from ..training.command_line import (
    add_recipe_arguments,
    add_run_arguments,
    recipe_of,
    run_settings,
    run_training,
)
from ..training.diffusers_files import weight_file
from ..training.launch import data_parallel, for_device
from ..training.recipes import CHOICES
from ..training.trainer import Trainer

ENCODED = "encoded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: folders, models, how to prepare pictures, a preset, every setting of it."""
    add = parser.add_argument
    add("dataset", type=Path,
        help="folder with metadata.csv, or with original_image/, object_image/ and target_image/")
    add_run_arguments(parser, save_every=500, validate_every=500)
    add("--unet", type=Path, required=True, metavar="FILE",
        help="InstructPix2Pix UNet as diffusers saves it, a .safetensors file or its folder")
    add("--vae", type=Path, required=True, metavar="FILE", help="its VAE, likewise")
    add("--vision", type=Path, required=True, metavar="FILE",
        help="CLIP ViT-L/14: a file as in ComfyUI's models/clip_vision, or a folder with config.json")
    add("--start-from", type=Path, metavar="FILE", help="Embedding Optimizer (default: a new one)")
    add("--size", type=int, default=SIZE,
        help=f"of scenes and targets, a multiple of 8; published: {PUBLISHED_SIZE} (default: %(default)s)")
    add("--variants", type=int, default=4, help="versions of each triplet (default: %(default)s)")
    add("--fit", choices=FITS, default=CROP, help="of objects that are not square (default: %(default)s)")
    add("--pixel-scale", choices=PIXEL_SCALES, default=AS_PUBLISHED,
        help="of objects, as at inference or as in the published training (default: %(default)s)")
    add_recipe_arguments(parser, PRESETS, CHOICES | INSERTION_CHOICES)


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    kept: list[Encoders] = []
    return run_training(
        args, lambda given: begin(given, kept), "train-object-insertion",
        lambda trainer: draw(trainer, kept[0]),
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
    recipe = for_device(recipe, accelerator.device)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    unet = load_unet(args.unet, dtype)
    cache = encoded(args, accelerator, kept)
    widths = cache.blank.shape[-1], unet.config.cross_attention_dim
    optimizer = starting_optimizer(args.start_from, *widths, args.seed)
    # Of both files, since a run must not be resumed with another UNet or another start.
    stamp = hashlib.sha256((sha256_of(weight_file(args.unet)) + stamp_of_start(args.start_from)).encode())
    settings = replace(settings, started_from=stamp.hexdigest())
    task = InsertionTask(Inserter(optimizer, unet), cache, recipe, settings)
    return Trainer(task, recipe, settings, accelerator)


def encoded(args: argparse.Namespace, accelerator: Accelerator, kept: list[Encoders]) -> TripletCache:
    """The triplets, encoded once by the first process."""
    main = accelerator.is_main_process
    dataset = read_triplets(args.dataset)
    if main:
        print(describe_triplets(dataset))
    reads = {} if args.start_from is None else {"reads": load_embedding_optimizer(args.start_from).reads}
    kept.append(Encoders(args.vae, args.vision, accelerator.device, **reads))
    preparation = Preparation(args.size, args.variants, args.fit, args.pixel_scale, args.seed)
    # The other processes wait, then find everything in the cache.
    with accelerator.main_process_first(), tqdm(total=len(dataset.triplets), disable=not main) as bar:
        cache, skipped = encode_triplets(
            dataset.triplets, args.output / ENCODED, kept[0].encoders(), preparation,
            lambda done, total: bar.update(done - bar.n),
        )
    if main and skipped:
        print("\n".join(describe_skipped(skipped, args.dataset)))
    kept[0].free_clip()
    return cache


def draw(trainer: Trainer, encoders: Encoders) -> Image.Image:
    """What is inserted into scenes that are held out, beside what should be."""
    with trainer.autocast(), trainer.state.weights_to_use() as model:
        return sample_sheet(trainer.task, model, trainer.device, encoders.decode)
