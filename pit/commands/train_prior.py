"""`python -m pit train-prior`, on its own or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
from pathlib import Path

from ..piece_it_together.training.recipes import PRESETS, PRIOR_CHOICES, Sizes, Trained
from ..piece_it_together.training.start import begin
from ..training.command_line import (
    add_recipe_arguments,
    add_run_arguments,
    recipe_of,
    run_settings,
    run_training,
)
from ..training.trainer import Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: folders, the start, how often to save, a preset, every setting of a recipe."""
    parser.add_argument("cache", type=Path, help="token cache, written by encode-dataset")
    add_run_arguments(parser, save_every=500, validate_every=250)
    parser.add_argument("--start-from", type=Path, help="IP-Prior file to fine-tune (default: from scratch)")
    parser.add_argument("--hidden-dim", type=int, default=2048, help="of a new prior (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="of a new prior (default: %(default)s)")
    parser.add_argument("--heads", type=int, help="attention heads (default: 32, or what the file says)")
    parser.add_argument("--verify", action="store_true", help="check every file of the cache first")
    add_recipe_arguments(parser, PRESETS, PRIOR_CHOICES, "; recommended learns much faster")


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    return run_training(args, begin_prior, "train-prior")


def begin_prior(args: argparse.Namespace) -> Trainer:
    """The trainer that the flags ask for."""
    # The file of a trained prior says its own sizes; only the number of heads may be missing in it.
    start: Sizes | Trained = Sizes(args.hidden_dim, args.layers, args.heads or Sizes.num_heads)
    if args.start_from:
        start = Trained(args.start_from, args.heads)
    recipe, settings = recipe_of(args, PRESETS), run_settings(args)
    return begin(args.cache, start, recipe, settings, cpu=args.cpu, verify=args.verify)
