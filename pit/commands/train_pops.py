"""`python -m pit train-pops`, on its own or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
import gc
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..files.pictures import describe_skipped
from ..pops.modes import MODES
from ..pops.training.cache import OperatorCache, encode_operator_dataset
from ..pops.training.encoders import load_encoders
from ..pops.training.layouts import describe_operator_dataset, read_operator_dataset
from ..pops.training.recipes import PRESETS, Sizes, Trained
from ..pops.training.start import begin
from ..training.command_line import (
    add_recipe_arguments,
    add_run_arguments,
    recipe_of,
    run_settings,
    run_training,
)
from ..training.launch import data_parallel
from ..training.recipes import CHOICES
from ..training.trainer import Trainer

ENCODED = "encoded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: folders, models, how often to save, a preset, every setting of a recipe."""
    add = parser.add_argument
    add("dataset", type=Path, help="folder of examples, in the layout of its mode")
    add_run_arguments(parser, save_every=500, validate_every=250)
    add("--mode", choices=list(MODES), required=True, help="what the operator is to do")
    add("--vision", type=Path, required=True, metavar="FILE",
        help="CLIP vision model: a file as in ComfyUI's models/clip_vision, or a folder with config.json")
    add("--text", type=Path, metavar="FOLDER", help="text encoder of the same CLIP, for the mode instruct")
    add("--backgrounds", type=Path, metavar="FOLDER", help="default: backgrounds in the dataset, if any")
    add("--randoms", type=Path, metavar="FOLDER", help="default: randoms in the dataset, if any")
    add("--versions", type=int, default=4,
        help="of what is random in each picture, such as patches (default: %(default)s)")
    add("--cache", type=Path, metavar="FOLDER", help=f"of the embeddings (default: {ENCODED} in the run)")
    add("--start-from", type=Path, metavar="FILE",
        help="operator, or prior of Kandinsky 2.2, to train further (default: from scratch)")
    add("--base", type=Path, metavar="FILE", help="prior with the statistics that a published operator lacks")
    sizes = Sizes()
    add("--hidden-dim", type=int, default=sizes.hidden_dim, help="of a new one (default: %(default)s)")
    add("--layers", type=int, default=sizes.num_layers, help="of a new one (default: %(default)s)")
    add("--heads", type=int, help="attention heads (default: 32, or what the file says)")
    add_recipe_arguments(parser, PRESETS, CHOICES, "; recommended for batches")


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    return run_training(args, begin_operator, "train-pops")


def begin_operator(args: argparse.Namespace) -> Trainer:
    """The trainer that the flags ask for; what is not encoded yet is encoded first.

    Raises:
        ValueError, OSError: something given cannot be used, or does not fit the rest.
    """
    recipe, settings, accelerator = recipe_of(args, PRESETS), run_settings(args), data_parallel(args.cpu)
    # Checked before the encoding, which can take long.
    recipe.check()
    start: Sizes | Trained = Sizes(args.hidden_dim, args.layers, args.heads or Sizes.num_heads)
    if args.start_from:
        start = Trained(args.start_from, args.base, args.heads)
    return begin(encoded(args, accelerator), start, recipe, settings, cpu=args.cpu)


def encoded(args: argparse.Namespace, accelerator: Accelerator) -> OperatorCache:
    """The embeddings, made once by the first process; the encoders are freed when this returns."""
    main, device = accelerator.is_main_process, accelerator.device
    dataset = read_operator_dataset(args.dataset, args.mode, args.backgrounds, args.randoms)
    if main:
        print(describe_operator_dataset(dataset))
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    # The other processes wait, then find everything in the cache.
    with accelerator.main_process_first(), tqdm(unit="example", disable=not main) as bar:
        encoders = load_encoders(args.vision, args.text, device, dtype)

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        cache, skipped = encode_operator_dataset(
            dataset, args.cache or args.output / ENCODED, encoders, versions=args.versions, seed=args.seed,
            on_progress=on_progress,
        )
    if main and skipped:
        print("\n".join(describe_skipped(skipped, args.dataset)))
    # Before the operator is loaded; the collector also frees what reference cycles would keep.
    del encoders
    gc.collect()
    return cache
