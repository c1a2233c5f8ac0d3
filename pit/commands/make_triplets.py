"""`python -m pit make-triplets`: the triplets of PIPE from local files, to train object insertion with."""
from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

from ..files.lock import only_process
from ..object_insertion.training.pipe import pipe_masks, pipe_rows, write_metadata, write_triplet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("pipe", type=Path, help="folder of PIPE: its parquet files, or source_img/ and target_img/")
    add("masks", type=Path, help="folder of PIPE_Masks: its parquet files, or pictures by the same names")
    add("output", type=Path, help="the dataset's folder; what is there already is kept")
    add("--limit", type=int, default=120_000,
        help="most rows that are read (default: %(default)s, as published)")
    add("--cut-out", action="store_true",
        help="put objects on white, instead of crops with what is around them as published")


def run(args: argparse.Namespace) -> int:
    """Make the dataset; returns the exit code."""
    try:
        count, left_out = make_triplets(args.pipe, args.masks, args.output, args.limit, args.cut_out)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for why, number in sorted(left_out.items()):
        print(f"left out: {number}, {why}")
    print(f"written: {count} triplets in {args.output}")
    return 0


def make_triplets(
    pipe: Path, masks: Path, output: Path, limit: int, cut_out: bool = False
) -> tuple[int, Counter[str]]:
    """Write triplets and their list; returns how many the folder holds, and why others were left out.

    Raises:
        ValueError: the files of PIPE or its masks are not there or of another kind, or no triplet comes out.
        ModuleNotFoundError: pyarrow is needed and not installed.
        OSError: the folder cannot be written.
    """
    from tqdm import tqdm

    for folder in (pipe, masks):
        if not folder.is_dir():
            raise FileNotFoundError(f"Expected a folder, got none at {folder}.")
    # All masks first: the published script looks for one among the same thousand rows only, and loses others.
    found = dict(pipe_masks(masks))
    left_out: Counter[str] = Counter()
    with only_process(output):
        for row in tqdm(islice(pipe_rows(pipe), limit), desc="rows", mininterval=1):
            why = write_triplet(output, row, found.get(row.name), cut_out)
            if why:
                left_out[why] += 1
        count = write_metadata(output)
    if not count:
        reasons = "; ".join(f"{number}, {why}" for why, number in left_out.items()) or "no rows"
        raise ValueError(f"Expected at least one triplet from {pipe}, got none ({reasons}).")
    return count, left_out
