"""The pack's command line: `python -m pit COMMAND`, run in the folder of the pack."""
from __future__ import annotations

import argparse
import importlib
import sys

# Where each command lives, as `add_arguments` and `run`, and what it does.
COMMANDS = {
    "download": (".commands.download", "fetch the published files into a ComfyUI"),
    "convert": (".commands.convert", "save a weight file as safetensors"),
    "make-parts": (".commands.make_parts", "cut pictures into parts, as a dataset to train on"),
    "encode-dataset": (".commands.encode_dataset", "encode a dataset into a token cache"),
    "train-prior": (".commands.train_prior", "train an IP-Prior on a token cache"),
    "train-ip-lora": (".commands.train_ip_lora", "train an IP-LoRA on pictures, captions and references"),
    "demo-train": (".commands.demo_train", "train the creature models from nothing"),
    "demo-measure": (".commands.demo_measure", "measure how well the creature models keep parts"),
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
