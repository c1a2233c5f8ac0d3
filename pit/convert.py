"""`python -m pit convert`: a weight file of any kind, saved as safetensors."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .checkpoints import CheckpointError, convert_to_safetensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags: from where, to where."""
    parser.add_argument("source", type=Path, help="weight file: .ckpt, .pt, .pth, .bin or .safetensors")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")


def run(args: argparse.Namespace) -> int:
    """Convert; returns the exit code."""
    try:
        convert_to_safetensors(args.source, args.target)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.target}")
    return 0
