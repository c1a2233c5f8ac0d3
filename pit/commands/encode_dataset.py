"""`python -m pit encode-dataset`: encode the pictures of a folder once, for `train-prior`."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from ..demo.models.renderer import creature_encoder
from ..files.pictures import describe_skipped
from ..ip_adapter.encoder import TokenEncoder, load_encoder
from ..piece_it_together.training.augment import Augmentation
from ..piece_it_together.training.dataset import describe, read_dataset
from ..piece_it_together.training.encode import EncodeReport, encode_dataset

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("dataset", type=Path, help="folder with targets and parts")
    add("cache", type=Path, help="folder of the token cache, which is created or added to")
    add("--vision", type=Path, metavar="FILE",
        help="CLIP vision model: a file as in ComfyUI's models/clip_vision, or a folder with config.json")
    add("--ip-adapter", type=Path, metavar="FILE", help="IP-Adapter-plus file")
    add("--creatures", action="store_true", help="use the pack's own miniature models instead of these two")
    add("--variants", type=int, default=4, help="augmented versions of each part (default: %(default)s)")
    add("--sketch-probability", type=float, default=0.0,
        help="share of the parts that are turned into sketches, 0 to 1 (default: %(default)s)")
    add("--references", type=int, default=0,
        help="grids of other targets per concept, for a prior with a reference slot (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--batch", type=int, default=32, help="pictures encoded at a time (default: %(default)s)")
    add("--device", default=None, help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)")
    add("--dtype", choices=DTYPES, default=None, help="default: fp16 on a GPU, fp32 on the CPU")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code; every failure is one message on stderr."""
    # The dataset before the models: a wrong folder is reported at once, not after the models have loaded.
    try:
        dataset = read_dataset(args.dataset)
        print(describe(dataset))
        encoder = chosen_encoder(args)
        with tqdm(unit="picture") as bar:
            report = encode_dataset(
                dataset, args.cache, encoder, variants=args.variants, references=args.references,
                seed=args.seed, batch=args.batch,
                augmentation=Augmentation(sketch_probability=args.sketch_probability),
                on_progress=lambda done, total: _show(bar, done, total),
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is encoded is kept, and the same command resumes from there.", file=sys.stderr)
        return 130
    return _conclude(report, args)


def chosen_encoder(args: argparse.Namespace) -> TokenEncoder:
    """The encoder that the arguments name.

    Raises:
        ValueError: too few or too many of them are given, or a file cannot be used.
    """
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.creatures and not (args.vision or args.ip_adapter or args.dtype):
        return creature_encoder(device)
    if args.creatures or not (args.vision and args.ip_adapter):
        raise ValueError("Expected --vision and --ip-adapter, or --creatures alone (always fp32).")
    # fp16 is slow on a CPU; on a GPU it is the precision that the published models were used in.
    dtype = args.dtype or ("fp32" if device == "cpu" else "fp16")
    return load_encoder(args.vision, args.ip_adapter, device, DTYPES[dtype])


def _show(bar: tqdm, done: int, total: int) -> None:
    # The total is known only once the cache has been searched for what is already there.
    bar.total = total
    bar.update(done - bar.n)


def _conclude(report: EncodeReport, args: argparse.Namespace) -> int:
    for line in describe_skipped(report.skipped, args.dataset):
        print(line)
    print(f"{args.cache}: {report.added} concepts encoded, {report.kept} were there already")
    if report.added + report.kept == 0:
        print("error: no concept could be encoded; see above for what was skipped.", file=sys.stderr)
        return 1
    return 0
