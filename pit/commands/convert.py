"""`python -m pit convert`: save a weight file of any kind as safetensors."""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..files.checked import without_wrappers
from ..files.known import first_of
from ..files.weights import WeightFileError, read_state, write_state
from ..ip_adapter.files import from_trainer
from ..messages import quoted
from ..object_insertion.unet_layout import in_comfyui_layout, is_instruct_unet
from ..piece_it_together.prior_files import PRIOR_SIGNS, _prior_sizes, prior_notes
from ..pops.files import is_operator, read_operator, save_operator
from ..pops.modes import mode_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: the file to read, the file to write, and what is merged into it."""
    parser.add_argument("source", type=Path, help="weight file: .ckpt, .pt, .pth, .bin or .safetensors")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--base", type=Path,
        help="for a pOps operator: the prior of Kandinsky 2.2, file or folder, with its statistics",
    )
    parser.add_argument("--only", metavar="NAME", help="write this tensor alone, such as conv_in.bias")


def run(args: argparse.Namespace) -> int:
    """Convert; return the exit code."""
    try:
        convert_to_safetensors(args.source, args.target, args.base, args.only)
    except WeightFileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.target}")
    return 0


def convert_to_safetensors(
    source: Path, target: Path, base: Path | None = None, only: str | None = None
) -> None:
    """Save a weight file of any kind as safetensors; an IP-Prior's `cfg.yaml` goes into its metadata.

    Of a checkpoint in which a trainer has saved an IP-Adapter with its UNet, only the adapter is written. An
    operator of pOps is merged with the statistics of its base. An InstructPix2Pix UNet of Stable Diffusion
    1.5 gets the names that ComfyUI loads.

    Args:
        only: the name of the one tensor to write.
    Raises:
        WeightFileError: the source cannot be read or lacks that tensor, the target exists or has another
            suffix, an operator without statistics has no base, or something else has one.
    """
    if target.suffix != ".safetensors":
        raise WeightFileError(f"Expected a .safetensors file to write, got {target}. Give it that suffix.")
    if target.exists():
        raise WeightFileError(f"{target} already exists. Move it away, or choose another name.")
    state, metadata = read_state(source)
    if only is not None:
        if only not in state:
            raise WeightFileError(
                f"{source}: expected a tensor {quoted(only)}, got {first_of(list(state))}. Name one of these."
            )
        write_state(target, {only: state[only]}, {})
        return
    state = from_trainer(state)
    if is_instruct_unet(without_wrappers(state)):
        state = in_comfyui_layout(without_wrappers(state))
    prior = without_wrappers(state)
    if is_operator(prior):
        merge_operator(source, target, base)
        return
    if base is not None:
        raise WeightFileError(
            f"{source}: expected a pOps operator to merge with {base}, got another file. Leave --base out."
        )
    # The number of heads does not show in the shapes of a prior's weights. Unlike a cfg.yaml beside the
    # file, the metadata cannot get lost.
    if all(key in prior for key in PRIOR_SIGNS):
        state, notes = prior, prior_notes(source, metadata, _prior_sizes(source, prior))
        names = {"num_heads": notes.get("num_attention_heads"), "use_ref": notes.get("use_ref")}
        metadata |= {key: str(value).lower() for key, value in names.items() if value is not None}
    write_state(target, state, metadata)


def merge_operator(source: Path, target: Path, base: Path | None) -> None:
    """Write an operator with its statistics, its head count and, where the path tells it, what it is for.

    Raises:
        WeightFileError: the operator or its base cannot be used.
    """
    file = read_operator(source, base)
    # The published files all have one name, and only their folders tell them apart.
    told = mode_in("/".join(source.absolute().parts[-2:]))
    save_operator(target, replace(file, mode=file.mode or told))
