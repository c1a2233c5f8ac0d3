"""`python -m pit convert`: save a weight file of any kind as safetensors."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..files.checked import without_wrappers
from ..files.weights import WeightFileError, read_state, write_state
from ..ip_adapter.files import from_trainer
from ..piece_it_together.prior_files import PRIOR_SIGNS, _prior_sizes, prior_notes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: the file to read and the file to write."""
    parser.add_argument("source", type=Path, help="weight file: .ckpt, .pt, .pth, .bin or .safetensors")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")


def run(args: argparse.Namespace) -> int:
    """Convert; return the exit code."""
    try:
        convert_to_safetensors(args.source, args.target)
    except WeightFileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.target}")
    return 0


def convert_to_safetensors(source: Path, target: Path) -> None:
    """Save a weight file of any kind as safetensors; an IP-Prior's `cfg.yaml` goes into its metadata.

    Of a checkpoint in which a trainer has saved an IP-Adapter with its UNet, only the adapter is written.

    Raises:
        WeightFileError: the source cannot be read, or the target exists or has another suffix.
    """
    if target.suffix != ".safetensors":
        raise WeightFileError(f"Expected a .safetensors file to write, got {target}. Give it that suffix.")
    if target.exists():
        raise WeightFileError(f"{target} already exists. Move it away, or choose another name.")
    state, metadata = read_state(source)
    state = from_trainer(state)
    prior = without_wrappers(state)
    # The number of heads does not show in the shapes of a prior's weights. Unlike a cfg.yaml beside the
    # file, the metadata cannot get lost.
    if all(key in prior for key in PRIOR_SIGNS):
        state, notes = prior, prior_notes(source, metadata, _prior_sizes(source, prior))
        names = {"num_heads": notes.get("num_attention_heads"), "use_ref": notes.get("use_ref")}
        metadata |= {key: str(value).lower() for key, value in names.items() if value is not None}
    write_state(target, state, metadata)
