"""Trains a tiny prior or IP-LoRA in children that are killed at random moments; run as a script.

Arguments: "prior" or "lora", folder of the cache or of pictures, folder of the run, number of kills, seed.
Prints one line of JSON: the step from which each child resumed, and the last one that it reported.
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

from pit.piece_it_together.ip_lora.cache import encode_lora_dataset
from pit.piece_it_together.ip_lora.dataset import read_lora_dataset
from pit.piece_it_together.ip_lora.recipes import PUBLISHED
from pit.piece_it_together.ip_lora.task import LoraTask
from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import begin
from pit.training.denoising import noise_schedule
from pit.training.launch import data_parallel
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer
from tests.training.tiny_renderer import tiny_encoders, tiny_renderer

RECIPE = replace(RECOMMENDED, steps=4000, batch=2)
LORA_RECIPE = replace(PUBLISHED, steps=4000, batch=1, accumulation=1, rank=2, ema_decay=0.9)
SAVE_EVERY = 3


def prior_trainer(cache: str, settings: RunSettings) -> Trainer:
    return begin(Path(cache), Sizes(32, 1, 2), RECIPE, settings, cpu=True)


def lora_trainer(pictures: str, settings: RunSettings) -> Trainer:
    samples = read_lora_dataset(Path(pictures), "captions as they are").samples
    cache, _ = encode_lora_dataset(samples, Path(pictures) / "encoded", tiny_encoders(), 16)
    task = LoraTask(tiny_renderer(), noise_schedule(), cache, LORA_RECIPE, settings)
    return Trainer(task, LORA_RECIPE, settings, data_parallel(cpu=True))


KINDS = {"prior": prior_trainer, "lora": lora_trainer}


def train(kind: str, data: str, folder: str, told: multiprocessing.SimpleQueue) -> None:
    """Resume the run, and report from which step."""
    torch.set_num_threads(1)
    trainer = KINDS[kind](data, RunSettings(Path(folder), save_every=SAVE_EVERY, validate_every=1000))
    told.put(trainer.state.step)
    trainer.run(lambda progress: told.put(progress.step))


def main() -> None:
    kind, data, folder, kills, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    context = multiprocessing.get_context("fork")
    begun, reached = [], []
    for _ in range(int(kills)):
        told = context.SimpleQueue()
        child = context.Process(target=train, args=(kind, data, folder, told))
        child.start()
        begun.append(told.get())
        last = begun[-1]
        for _ in range(rng.randrange(3 * SAVE_EVERY)):  # counted in steps: machines differ in pace
            last = told.get()
        time.sleep(rng.uniform(0.0, 0.05))
        child.kill()
        child.join()
        while not told.empty():
            last = told.get()
        reached.append(last)
    print(json.dumps({"begun": begun, "reached": reached}))


if __name__ == "__main__":
    main()
