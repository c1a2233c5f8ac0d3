"""`python -m pit train-ip-lora`, on its own or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
import gc
import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..files.pictures import describe_skipped
from ..files.whole import sha256_of
from ..ip_adapter.encoder import load_encoder
from ..piece_it_together.ip_lora.cache import LoraCache, RenderEncoders, encode_lora_dataset
from ..piece_it_together.ip_lora.dataset import MODES, describe_lora_dataset, read_lora_dataset
from ..piece_it_together.ip_lora.recipes import PRESETS
from ..piece_it_together.ip_lora.task import LoraTask
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
SDXL_SIZE = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: folders, models, how often to save, a preset, every setting of a recipe."""
    add = parser.add_argument
    add("dataset", type=Path, help="folder with targets/ and refs/")
    add_run_arguments(parser, save_every=100, validate_every=50)
    add("--mode", choices=list(MODES), default=next(iter(MODES)), help="captions (default: %(default)s)")
    add("--base", type=Path, metavar="FILE", help="SDXL: a .safetensors file, or a diffusers folder")
    add("--vision", type=Path, metavar="FILE",
        help="CLIP vision model: a file as in ComfyUI's models/clip_vision, or a folder with config.json")
    add("--ip-adapter", type=Path, metavar="FILE", help="IP-Adapter-plus file")
    add("--creatures", action="store_true", help="use the pack's own miniature models instead of these three")
    add("--size", type=int, help=f"of the pictures, a multiple of 8 (default: {SDXL_SIZE}; creatures: 256)")
    add_recipe_arguments(parser, PRESETS, CHOICES)


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    return run_training(args, begin_lora, "train-ip-lora")


def begin_lora(args: argparse.Namespace) -> Trainer:
    """The trainer that the flags ask for; what is not encoded yet is encoded first.

    Raises:
        ValueError, OSError: something given cannot be used, or does not fit the rest.
    """
    recipe, settings, accelerator = recipe_of(args, PRESETS), run_settings(args), data_parallel(args.cpu)
    # Checked before the encoding, which can take long.
    recipe.check()
    recipe = for_device(recipe, accelerator.device)
    cache = encoded(args, accelerator)
    if args.creatures:
        from ..demo.models.renderer import creature_renderer, creature_stamp

        (renderer, schedule), stamp = creature_renderer(), creature_stamp()
    else:
        from ..piece_it_together.ip_lora.base import load_renderer
        from ..training.stable_diffusion import stamp_of

        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        renderer, schedule = load_renderer(args.base, args.ip_adapter, dtype)
        # Of both files, since a run must not be resumed with another base or another adapter.
        stamp = hashlib.sha256((stamp_of(args.base) + sha256_of(args.ip_adapter)).encode()).hexdigest()
    settings = replace(settings, started_from=stamp)
    return Trainer(LoraTask(renderer, schedule, cache, recipe, settings), recipe, settings, accelerator)


def encoded(args: argparse.Namespace, accelerator: Accelerator) -> LoraCache:
    """The samples, encoded once by the first process; the encoders are freed when this returns."""
    main = accelerator.is_main_process
    dataset = read_lora_dataset(args.dataset, args.mode)
    if main:
        print(describe_lora_dataset(dataset))
    # The other processes wait, then find everything in the cache.
    with accelerator.main_process_first(), tqdm(total=len(dataset.samples), disable=not main) as bar:
        encoders, size = chosen_encoders(args, accelerator.device)
        cache, skipped = encode_lora_dataset(
            dataset.samples, args.output / ENCODED, encoders, args.size or size,
            lambda done, total: bar.update(done - bar.n),
        )
    if main and skipped:
        print("\n".join(describe_skipped(skipped, args.dataset)))
    # Before the UNet is loaded, so that both need not fit into memory together; the collector also frees what
    # reference cycles would keep.
    del encoders
    gc.collect()
    return cache


def chosen_encoders(args: argparse.Namespace, device: torch.device) -> tuple[RenderEncoders, int]:
    """The encoders that the flags name, and the size of the pictures for them.

    Raises:
        ValueError: too few or too many are given, or a file cannot be used.
    """
    given = (args.base, args.vision, args.ip_adapter)
    if args.creatures and not any(given):
        from ..demo.models.renderer import creature_render_encoders
        from ..demo.models.sizes import PICTURE_SIZE

        return creature_render_encoders(), PICTURE_SIZE
    if args.creatures or not all(given):
        raise ValueError("Expected --base, --vision and --ip-adapter, or --creatures alone.")
    from ..piece_it_together.ip_lora.base import load_encoders

    dtype = torch.float32 if device.type == "cpu" else torch.float16
    tokens = load_encoder(args.vision, args.ip_adapter, device, dtype)
    return load_encoders(args.base, tokens, device, dtype), SDXL_SIZE
