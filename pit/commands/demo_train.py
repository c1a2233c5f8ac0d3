"""`python -m pit demo-train`: train the miniature models from scratch, stage by stage, with fixed seeds."""
from __future__ import annotations

import argparse
from pathlib import Path

from ..demo.training import STAGES, TRAINING_SEED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--folder", type=Path, default=Path("demo-training"),
        help="checkpoints, caches and logs; an interrupted run resumes from here (default: %(default)s)")
    add("--stage", choices=STAGES, action="append", metavar="STAGE",
        help="run only this stage (can be given more than once); the default is all, in order: "
        f"{', '.join(STAGES)}")
    add("--creatures", type=int, default=32000, help="size of the dataset (default: %(default)s)")
    add("--seed", type=int, default=TRAINING_SEED, help="default: %(default)s")
    add("--device", default=None, help="cpu or cuda (default: the GPU if there is one)")
    add("--precision", choices=("bf16", "fp32"), default="bf16", help="default: %(default)s")
    add("--compile", action="store_true",
        help="train the UNets by torch.compile: faster, once its minutes of compilation are paid for")
    add("--workers", type=int, default=2, help="processes that draw creatures (default: %(default)s)")
    add("--threads", type=int, default=None, help="CPU threads of the training (default: torch's own)")
    add("--weights", type=Path, default=None, help="folder for the weights (default: the pack's own)")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen stages; return the exit code."""
    # Here rather than above: `python -m pit demo-train --help` must not wait for torch.
    from ..demo.training.stages import run_stages

    return run_stages(arguments)
