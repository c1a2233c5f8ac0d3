"""Make the pictures of the help pages, in a real ComfyUI with nothing but the pack.

Those that train take minutes, all others seconds. Run in the folder of the pack, inside dev.py's environment:

    python -m dev.help_pictures
    python -m dev.help_pictures PiT_BlendConcepts PiT_Combine   # only these
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dev import LOGS, ROOT, Failure
from dev.comfyui import ensure_comfyui, make_base
from dev.help_pictures.recipes import RECIPES
from dev.help_pictures.sheet import encoded
from dev.help_pictures.studio import Studio
from dev.server import ComfyServer

PICTURES = ROOT / "web" / "docs" / "pictures"


def write_all(studio: Studio, nodes: Sequence[str]) -> list[str]:
    """Write the pictures of these nodes; what went wrong with the others, a line each."""
    problems = []
    for node in nodes:
        try:
            (PICTURES / f"{node}.jpg").write_bytes(encoded(RECIPES[node](studio)))
            print(node, flush=True)
        except (Failure, ValueError) as error:
            # The others are made nevertheless: a graph that fails leaves nothing behind.
            problems.append(f"{node}: {error}")
    return problems


def main(arguments: list[str] | None = None) -> int:
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m dev.help_pictures", description=summary)
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="only these (default: all)")
    nodes = parser.parse_args(arguments).nodes or sorted(RECIPES)
    unknown = sorted(set(nodes) - set(RECIPES))
    if unknown:
        parser.error(f"Expected nodes that have a recipe, got {', '.join(unknown)}.")
    PICTURES.mkdir(exist_ok=True)
    # A new folder each time, or trainings of a former run would count as finished.
    with tempfile.TemporaryDirectory() as folder:
        base, log = make_base(Path(folder)), LOGS / "help_pictures.log"
        with ComfyServer(ensure_comfyui(), base, log) as server:
            problems = write_all(Studio(server), nodes)
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
