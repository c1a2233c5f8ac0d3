"""`python -m pit queue`: work through many prompts on one or several ComfyUI servers.

The client talks to the network, which the published pack does not: it stands beside the pack, in a clone.
"""
from __future__ import annotations

import argparse
import sys

try:
    from queue_client.command import add_arguments as add_client_arguments
    from queue_client.command import run as run_client
except ModuleNotFoundError as missing:
    if missing.name != "queue_client":
        raise
    add_client_arguments = run_client = None

MISSING = (
    "Expected the folder queue_client beside the folder pit, got none: the archive of the registry leaves it "
    "out, because it talks to the network. Copy it from the pack's repository, "
    "https://github.com/piece-it-together/piece-it-together, and run the command in the folder of the pack."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments; without the client anything, to say what is missing."""
    if add_client_arguments is None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help=MISSING)
    else:
        add_client_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the client and return its exit code."""
    if run_client is None:
        print(f"error: {MISSING}", file=sys.stderr)
        return 1
    return run_client(args)
