"""`python -m pit train-partcraft`, on its own or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..encoders.dino import dino_features, features_of, load_dino
from ..files.pictures import PictureError, describe_skipped, open_picture
from ..files.whole import sha256_of
from ..images import is_plain
from ..partcraft.cluster_files import read_part_clusters, save_part_clusters
from ..partcraft.discovery import PARTS, SEED, PartClusters, discover, usual_codes
from ..partcraft.training.base import Base, load_base
from ..partcraft.training.cache import PartCache, PartEncoders, Preparation, encode_pictures
from ..partcraft.training.painter import PartPainter, new_mapper
from ..partcraft.training.pictures import BY_CLUSTERS, CODES_BY, Pictures, coding_of, read_pictures
from ..partcraft.training.recipes import PART_CHOICES, PRESETS, PartRecipe
from ..partcraft.training.samples import sample_sheet
from ..partcraft.training.task import PartTask
from ..partcraft.training.texts import clip_tokens
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

ENCODED, FOUND = "encoded", "part_clusters.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: folders, models, how parts are found, a preset, every setting of it."""
    add = parser.add_argument
    add("pictures", type=Path, help="folder of pictures; those in the folders directly in it count, too")
    add_run_arguments(parser, save_every=250, validate_every=250)
    add("--base", type=Path, required=True, metavar="FILE",
        help="SD 1.5 or SDXL: a .safetensors file, or a diffusers folder")
    add("--dino", type=Path, required=True, metavar="FILE", help="DINOv2, as in ComfyUI's models/clip_vision")
    add("--clusters", type=Path, metavar="FILE",
        help=f"of Save Part Clusters (default: {FOUND} of the run, found on the pictures if it is not there)")
    add("--parts", type=int, default=PARTS, help="to find, with the background (default: %(default)s)")
    add("--codes", type=int, default=0, help="of each part (default: one for every four pictures)")
    add("--codes-by", choices=CODES_BY, default=BY_CLUSTERS,
        help="what the codes are: those of the clusters, or the folders of the pictures, as classes")
    add("--size", type=int, help="of the pictures, a multiple of 8 (default: 512; SDXL: 1024)")
    add("--variants", type=int, default=2, help="cuts of each picture (default: %(default)s)")
    add_recipe_arguments(parser, PRESETS, CHOICES | PART_CHOICES)


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    kept: list[Base] = []
    return run_training(
        args, lambda given: begin(given, kept), "train-partcraft", lambda trainer: draw(trainer, kept[0]),
    )


def begin(args: argparse.Namespace, kept: list[Base]) -> Trainer:
    """The trainer that the flags ask for; what is not found or encoded yet comes first.

    Args:
        kept: takes the base, for the pictures of validations.
    Raises:
        ValueError, OSError: something given cannot be used, or does not fit the rest.
    """
    recipe, settings, accelerator = recipe_of(args, PRESETS), run_settings(args), data_parallel(args.cpu)
    # Checked before parts are found and pictures encoded, which can take long.
    recipe.check()
    recipe = for_device(recipe, accelerator.device)
    pictures = read_pictures(args.pictures)
    base = load_base(args.base)
    kept.append(base)
    cache = encoded(args, accelerator, base, pictures, recipe)
    parts, codes = len(cache.coding.vocabulary.parts), cache.coding.count
    mapper = new_mapper(parts, codes, base.encoders, recipe.projections, args.seed)
    tokens = clip_tokens(parts, len(base.encoders))
    painter = PartPainter(base.unet, base.encoders, mapper, tokens.words, recipe.map_level)
    settings = replace(settings, started_from=base.stamp)
    task = PartTask(painter, tokens, cache, recipe, settings, base.schedule)
    return Trainer(task, recipe, settings, accelerator)


def encoded(
    args: argparse.Namespace, accelerator: Accelerator, base: Base, pictures: Pictures, recipe: PartRecipe
) -> PartCache:
    """The pictures with the masks and codes of their parts, worked out once by the first process."""
    main, device = accelerator.is_main_process, accelerator.device
    if main:
        print("\n".join([f"{len(pictures.paths)} pictures", *pictures.problems]))
    dino = load_dino(args.dino).to(device)
    latents = base.latents(device)

    def features(pixels: Tensor) -> Tensor:
        return dino_features(dino, pixels.to(device)).float().cpu()

    models = {"base": base.stamp, "DINOv2": sha256_of(args.dino)}
    encoders = PartEncoders(models, latents, features, dino.config.image_size)
    preparation = Preparation(args.size or base.size, args.variants, recipe.flips, args.seed)
    # The other processes wait, then find everything in the folder.
    with accelerator.main_process_first(), tqdm(total=len(pictures.paths), disable=not main) as bar:
        clusters = chosen_clusters(args, pictures, dino, device)
        cache, skipped = encode_pictures(
            pictures, args.output / ENCODED, encoders, clusters, coding_of(clusters, pictures, args.codes_by),
            preparation, lambda done, total: bar.update(done - bar.n),
        )
    if main and skipped:
        print("\n".join(describe_skipped(skipped, args.pictures)))
    return cache


def chosen_clusters(
    args: argparse.Namespace, pictures: Pictures, dino: torch.nn.Module, device: torch.device
) -> PartClusters:
    """The clusters of a file, or those of the pictures, which are found once."""
    if args.clusters is not None:
        return read_part_clusters(args.clusters)
    path = args.output / FOUND
    if path.is_file():
        return read_part_clusters(path)
    usable = [each for each in pictures.paths if shows_parts(each)]
    found = discover(
        features_of(dino, lambda number: open_picture(usable[number]), device), len(usable), args.parts,
        args.codes or usual_codes(len(usable)), seed=SEED, device=device,
    )
    print("\n".join([f"found {args.parts} parts", *found.notes]))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_part_clusters(path, found.clusters)
    return read_part_clusters(path)


def shows_parts(path: Path) -> bool:
    """Whether a picture can be opened, and shows more than one color."""
    try:
        return not is_plain(open_picture(path))
    except PictureError:
        return False


def draw(trainer: Trainer, base: Base) -> Image.Image:
    """A few pictures, and beside them what is drawn from their words."""
    with trainer.autocast(), trainer.state.weights_to_use() as model:
        return sample_sheet(trainer.task, model, trainer.device, base.decode)
