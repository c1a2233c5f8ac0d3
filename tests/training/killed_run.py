"""Trains a tiny prior in children that are killed at random moments; run as a script.

Arguments: cache, folder of the run, number of kills, seed. Prints one line of JSON: the step that each child
went on from, and the last one that it told of.
"""
from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from pit.training.prior_recipes import RECOMMENDED, Sizes
from pit.training.recipes import RunSettings
from pit.training.start import begin

RECIPE = replace(RECOMMENDED, steps=4000, batch=2)
SAVE_EVERY = 3


def train(cache_folder: str, folder: str, told: multiprocessing.SimpleQueue) -> None:
    """Go on with the run, and tell where from."""
    torch.set_num_threads(1)
    settings = RunSettings(Path(folder), save_every=SAVE_EVERY, validate_every=1000)
    trainer = begin(Path(cache_folder), Sizes(32, 1, 2), RECIPE, settings, cpu=True)
    told.put(trainer.state.step)
    trainer.run(lambda progress: told.put(progress.step))


def main() -> None:
    cache, folder, kills, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    context = multiprocessing.get_context("fork")
    begun, reached = [], []
    for _ in range(int(kills)):
        told = context.SimpleQueue()
        child = context.Process(target=train, args=(cache, folder, told))
        child.start()
        begun.append(told.get())
        time.sleep(rng.uniform(0.0, 0.15))
        child.kill()
        child.join()
        last = begun[-1]
        while not told.empty():
            last = told.get()
        reached.append(last)
    print(json.dumps({"begun": begun, "reached": reached}))


if __name__ == "__main__":
    main()
