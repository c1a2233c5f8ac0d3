"""`python -m pit encode-dataset`: encode the pictures of a folder once, for `train-prior`.

`accelerate launch -m pit encode-dataset` shares the work among processes, on one machine or on several that
see the same folders.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from ..demo.models.renderer import creature_encoder
from ..files.pictures import describe_skipped, listing
from ..ip_adapter.encoder import TokenEncoder, load_encoder
from ..piece_it_together.training.augment import Augmentation
from ..piece_it_together.training.cache_parts import WHOLE, Share, gather_parts
from ..piece_it_together.training.dataset import Dataset, describe, read_dataset
from ..piece_it_together.training.encode import EncodeReport, encode_dataset
from ..piece_it_together.training.tar_shards import tar_shards
from ..training.launch import data_parallel, leave

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("dataset", type=Path, help="folder with targets and parts, with tar archives of them, or one archive")
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
    try:
        return run_share(args, launched(args))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is encoded is kept, and the same command resumes from there.", file=sys.stderr)
        return 130


def launched(args: argparse.Namespace) -> Accelerator | None:
    """The processes that accelerate has launched; None for one that works alone."""
    if not torch.distributed.is_torchelastic_launched():
        return None
    # Some have less to do than others, and wait for them at the end.
    return data_parallel(cpu=args.device == "cpu", patience=timedelta(days=30))


def run_share(args: argparse.Namespace, processes: Accelerator | None) -> int:
    """Encode what is for this process to do; the first one puts together what all have encoded."""
    share = WHOLE if processes is None else Share(processes.process_index, processes.num_processes)
    is_first = share.number == 0
    # The dataset before the models: a wrong folder is reported at once, not after the models have loaded.
    shards = tar_shards(args.dataset)
    dataset = dataset_beside(args.dataset, shards)
    if is_first:
        print(described(dataset, shards))
    encoder = chosen_encoder(args, processes)
    if is_first:
        gather_parts(args.cache)
    wait(processes)
    with tqdm(unit="picture", disable=not is_first) as bar:
        report = encode_dataset(
            dataset, args.cache, encoder, variants=args.variants, references=args.references,
            seed=args.seed, batch=args.batch, shards=shards, share=share,
            augmentation=Augmentation(sketch_probability=args.sketch_probability),
            on_progress=lambda done, total: _show(bar, done, total),
        )
    reports = [report] if processes is None else gather_object([report])
    if is_first:
        gather_parts(args.cache)
    wait(processes)
    code = _conclude(reports, args, quiet=not is_first)
    leave()
    return code


def wait(processes: Accelerator | None) -> None:
    """Until all processes are here."""
    if processes is not None:
        processes.wait_for_everyone()


def dataset_beside(folder: Path, shards: list[Path]) -> Dataset:
    """The pictures in a folder, none if there are only archives; errors as in `read_dataset`."""
    if shards and not (folder.is_dir() and any(entry.is_dir() for entry in listing(folder))):
        return Dataset(folder, "folders", (), (), {})
    dataset = read_dataset(folder)
    return replace(dataset, skipped=tuple(each for each in dataset.skipped if each.path not in shards))


def described(dataset: Dataset, shards: list[Path]) -> str:
    """A report of a few lines about what is to be encoded."""
    archives = [f"{dataset.folder}: {len(shards)} tar archives"] if shards else []
    return "\n".join([*archives, *([describe(dataset)] if dataset.concepts else [])])


def chosen_encoder(args: argparse.Namespace, processes: Accelerator | None = None) -> TokenEncoder:
    """The encoder that the arguments name, on the device of this process.

    Raises:
        ValueError: too few or too many of them are given, or a file cannot be used.
    """
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if processes is not None:
        device = str(processes.device)
    if args.creatures and not (args.vision or args.ip_adapter or args.dtype):
        return creature_encoder(device)
    if args.creatures or not (args.vision and args.ip_adapter):
        raise ValueError("Expected --vision and --ip-adapter, or --creatures alone (always fp32).")
    # fp16 is slow on a CPU; on a GPU it is the precision that the published models were used in.
    dtype = args.dtype or ("fp32" if device == "cpu" else "fp16")
    return load_encoder(args.vision, args.ip_adapter, device, DTYPES[dtype])


def _show(bar: tqdm, done: int, total: int) -> None:
    # The total is known only once the cache has been searched for what is already there.
    bar.total = total if done <= total else None  # nobody has counted what is in archives
    bar.update(done - bar.n)


def _conclude(reports: list[EncodeReport], args: argparse.Namespace, quiet: bool) -> int:
    added, kept = (sum(getattr(report, each) for report in reports) for each in ("added", "kept"))
    if not quiet:
        skipped = [each for report in reports for each in report.skipped]
        for line in describe_skipped(skipped, args.dataset):
            print(line)
        print(f"{args.cache}: {added} concepts encoded, {kept} were there already")
    if added + kept == 0:
        print("error: no concept could be encoded; see above for what was skipped.", file=sys.stderr)
        return 1
    return 0
