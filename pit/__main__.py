"""The pack's command line: `python -m pit COMMAND`, run in the folder of the pack."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path


def _set_up_download(parser: argparse.ArgumentParser) -> None:
    from .download import add_arguments, run

    add_arguments(parser)
    parser.set_defaults(run=run)


def _set_up_demo_train(parser: argparse.ArgumentParser) -> None:
    from .demo.training import add_arguments, run

    add_arguments(parser)
    parser.set_defaults(run=run)


def _set_up_demo_measure(parser: argparse.ArgumentParser) -> None:
    from .demo.measure import add_arguments, run

    add_arguments(parser)
    parser.set_defaults(run=run)


def _set_up_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="weight file: .ckpt, .pt, .pth, .bin or .safetensors")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    from .checkpoints import CheckpointError, convert_to_safetensors

    try:
        convert_to_safetensors(args.source, args.target)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.target}")
    return 0


COMMANDS = {
    "download": (_set_up_download, "fetch the published files into a ComfyUI"),
    "demo-train": (_set_up_demo_train, "train the creature models from nothing"),
    "demo-measure": (_set_up_demo_measure, "measure how well the creature models keep parts"),
    "convert": (_set_up_convert, "save a weight file as safetensors"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code. `arguments` defaults to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m pit", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (set_up, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if arguments[:1] == [name]:  # importing the others would bring torch for nothing
            set_up(command)
    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
