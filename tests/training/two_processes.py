"""Trains as one of two processes, one training after the other; run by accelerate.

Arguments: token cache, pictures, and a folder for all that is written. Of the first two trainings the second
process cancels the one and sees another folder in the other; each process writes its last step and its error
to `FAULT RANK.json`. Then an IP-LoRA is trained in `lora/`, and by the command itself a prior in `prior/`.
"""
from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from pit.__main__ import main as command
from pit.commands import train_ip_lora
from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import begin
from pit.training.launch import data_parallel
from pit.training.recipes import RunSettings

RECIPE = replace(RECOMMENDED, steps=9, batch=2)
PRIOR = [
    "--hidden-dim", "32", "--layers", "2", "--heads", "2", "--cpu", "--preset", "recommended",
    "--precision", "fp32", "--steps", "6", "--save-every", "3", "--validate-every", "3",
]
LORA = [
    "--creatures", "--cpu", "--mode", "captions as they are", "--rank", "2", "--size", "64", "--steps", "4",
    "--save-every", "2", "--validate-every", "2", "--learning-rate", "1e-3", "--accumulation", "1",
]


class Cancelled(BaseException):
    pass


def fail(cache: Path, folder: Path, fault: str) -> None:
    """Train until both processes stop, and tell how."""
    rank, reached = data_parallel(cpu=True).process_index, []

    def on_step(progress):
        reached.append(progress.step)
        if fault == "cancel" and rank == 1 and progress.step == 4:
            raise Cancelled

    seen = folder / ("other" if fault == "elsewhere" and rank == 1 else "run")
    try:
        begin(cache, Sizes(32, 1, 2), RECIPE, RunSettings(seen), cpu=True).run(on_step)
    except (ValueError, KeyboardInterrupt, Cancelled) as error:
        told = [reached[-1:], type(error).__name__, str(error)]
        (folder / f"{fault} {rank}.json").write_text(json.dumps(told), encoding="utf-8")


def train_lora(*arguments: str) -> None:
    """What the command does, without taking leave of the other process."""
    parser = argparse.ArgumentParser()
    train_ip_lora.add_arguments(parser)
    train_ip_lora.begin_lora(parser.parse_args(arguments)).run(lambda progress: None)


def main(cache: str, pictures: str, folder: str) -> int:
    for fault in ("cancel", "elsewhere"):
        fail(Path(cache), Path(folder), fault)
    train_lora(pictures, f"{folder}/lora", *LORA, "--batch", "1")
    return command(["train-prior", cache, f"{folder}/prior", *PRIOR, "--batch", "4"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
