"""The pack's command line: `python -m pit COMMAND`, run in the folder of the pack."""
from __future__ import annotations

import argparse
import importlib
import sys

# Where each command lives, as `add_arguments` and `run`, and what it does.
COMMANDS = {
    "download": (".download", "fetch the published files into a ComfyUI"),
    "convert": (".convert", "save a weight file as safetensors"),
    "make-parts": (".training.part_commands", "cut pictures into parts, as a dataset to train on"),
    "encode-dataset": (".training.encode_commands", "encode a dataset into a token cache"),
    "train-prior": (".training.prior_commands", "train an IP-Prior on a token cache"),
    "train-ip-lora": (".training.lora_commands", "train an IP-LoRA on pictures, captions and references"),
    "demo-train": (".demo.training", "train the creature models from nothing"),
    "demo-measure": (".demo.measure", "measure how well the creature models keep parts"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code. `arguments` defaults to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m pit", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (home, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if arguments[:1] == [name]:  # importing the others would bring torch for nothing
            module = importlib.import_module(home, __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
