"""Trainings that are killed at random moments again and again: what each kill costs, whether a run is lost.

Each run trains a tiny prior, saving every 3 of 12 steps, in forked children; a child is killed after a random
time and followed by the next one, until one comes to the end. Lost is a run that cannot go on, that repeats
more than the steps since its last save, or whose result is another one than that of a run without kills. Run
in the folder of the pack:

    python -m benchmarks.random_kills --kills 345
"""
from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from pit.piece_it_together.prior_files import load_prior
from tests.training.killed_run import SAVE_EVERY, start
from tests.training.tiny import write_cache

# Kills on the way to the end of one run; from then on its children are left alone, so that every run ends.
MOST_KILLS = 8


def forked(work: Callable[[Callable[[int], None]], None], seconds: float | None) -> tuple[list[int], bool]:
    """The numbers that `work` told in a child, and whether it was killed, `seconds` after its first number.

    Raises:
        RuntimeError: the child ended with an error of its own.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda number: os.write(write, f"{number}\n".encode()))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read) as told:
        first = told.readline()
        if seconds is not None and first:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        numbers = [int(line) for line in [first, *told] if line.strip()]
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("The training ended with an error of its own.")
    return numbers, os.WIFSIGNALED(status)


def train(cache: Path, folder: Path, tell: Callable[[int], None]) -> None:
    """Begin or resume a run and tell the step it begins with, then every step."""
    trainer = start(cache, folder)
    tell(trainer.state.step)
    trainer.run(lambda progress: tell(progress.step))


def run_to_the_end(cache: Path, folder: Path, rng: random.Random, length: float) -> list[int]:
    """Train with kills; how many steps each of them cost."""
    costs, killed = [], True
    while killed:
        limit = rng.uniform(0, length) if len(costs) < MOST_KILLS else None
        reached, killed = forked(lambda tell: train(cache, folder, tell), limit)
        if killed:
            following, _ = forked(lambda tell: tell(start(cache, folder).state.step), None)
            costs.append(max(0, reached[-1] - following[0]))
    return costs


def same(first: Path, second: Path) -> bool:
    """Whether two results are the same to the last bit."""
    ours, theirs = (load_prior(each / "prior.safetensors").state_dict() for each in (first, second))
    return ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=345, help="end after the run with this kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, costs, runs, lost = random.Random(options.seed), [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = write_cache(folder / "cache").folder
        begun = time.monotonic()
        forked(lambda tell: train(cache, folder / "whole", tell), None)
        length = time.monotonic() - begun
        while len(costs) < options.kills:
            try:
                those = run_to_the_end(cache, folder / str(runs), rng, length)
                lost += max(those, default=0) > SAVE_EVERY or not same(folder / str(runs), folder / "whole")
                costs += those
            except RuntimeError:
                lost += 1
            runs += 1
    print(json.dumps({
        "kills": len(costs), "runs": runs, "runs lost": lost, "most steps repeated": max(costs),
        "steps between two saves": SAVE_EVERY, "seconds of a run": round(length, 2),
    }, indent=2))


if __name__ == "__main__":
    main()
