"""The pack's command line: `python -m pit COMMAND`, run in the folder of the pack."""
from __future__ import annotations

import argparse
import pkgutil
import sys

from .files.published import Command
from .systems import SYSTEMS

# A system's commands come from its record, so that a new system needs no change here.
COMMANDS = {
    "download": Command("download", "fetch the published files into a ComfyUI"),
    "convert": Command("convert", "save a weight file as safetensors"),
    "queue": Command("queue", "work through many prompts on one or several ComfyUI servers"),
} | {name: command for system in SYSTEMS for name, command in system.commands.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` defaults to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m pit", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.summary, description=command.summary)
        if arguments[:1] == [name]:  # importing the others would load torch for nothing
            module = pkgutil.resolve_name(f"{__package__}.commands.{command.module}:")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
