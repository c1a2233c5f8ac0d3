"""Trains a tiny prior in children that are killed at every point where they change a file; run as a script.

Arguments: folder of the cache, folder for `run` and `whole`. Each child goes on with the run, and is killed
at the first point at which none was killed before it, until one comes to the end. Prints a line of JSON for
each child: the step that it went on from, the last one that it told of, and the point at which it was killed.
Last, the same is trained whole.
"""
from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from pit.piece_it_together.training.recipes import RECOMMENDED, Sizes
from pit.piece_it_together.training.start import begin
from pit.training.checkpoint import checkpoint_folders
from pit.training.recipes import RunSettings
from pit.training.trainer import Trainer

RECIPE = replace(RECOMMENDED, steps=12, batch=2)
SIZES = Sizes(32, 1, 2)
SAVE_EVERY = 3
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
BY_NAME_ALONE = ("os.remove", "os.rmdir")  # as shutil.rmtree removes what is in a folder


class Killer:
    """An audit hook: Python tells it of every file that is about to be opened, renamed or removed.

    Of an opening to write there are two points: before it, and in the middle of what is written then. Until
    there is a checkpoint to lose, only renames count.
    """

    def __init__(self, folder: Path, known: set[str], told: int):
        self.folder, self.known, self.told = str(folder), known, told
        self.at_work = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in EVENTS or self.at_work or threading.current_thread() is not threading.main_thread():
            return  # TensorBoard's thread writes nothing that a run needs
        place = str(arguments[0])
        if not place.startswith(self.folder) and ("/" in place or event not in BY_NAME_ALONE):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        self.at_work = True
        name = re.sub(r"\w+(?=\.tensors)", "NAME", re.sub(r"\d+", "N", place.removeprefix(self.folder)))
        if event == "open" and arguments[2] & os.O_APPEND:
            name += ", appending"
        if checkpoint_folders(Path(self.folder) / "checkpoints"):
            self.kill_at(f"before {event} {name}")
            if event == "open":
                self.kill_at(f"inside {name}", lambda: write_half(place, arguments[2]))
        elif event == "os.rename":
            self.kill_at(f"at first, before {event} {name}")
        self.at_work = False

    def kill_at(self, point: str, prepare=lambda: None) -> None:
        if point not in self.known:
            prepare()
            os.write(self.told, f"{json.dumps(point)}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def write_half(path: str, flags: int) -> None:
    """What a kill in the middle of writing leaves: half a line more, half of the file, or the first bytes."""
    if flags & os.O_APPEND:
        with open(path, "ab") as file:
            file.write(b"9,0.5")
    elif os.path.exists(path) and not flags & os.O_TRUNC:
        os.truncate(path, os.path.getsize(path) // 2)
    else:
        Path(path).write_bytes(b"half")


def start(cache: Path, folder: Path) -> Trainer:
    torch.set_num_threads(1)  # results depend on the number
    settings = RunSettings(folder, save_every=SAVE_EVERY, validate_every=SAVE_EVERY, keep=2)
    return begin(cache, SIZES, RECIPE, settings, cpu=True)


def train(cache: Path, folder: Path, known: set[str], told: int) -> None:
    """Go on with the run, and tell every step."""
    sys.addaudithook(Killer(folder, known, told))
    trainer = start(cache, folder)
    os.write(told, f"{trainer.state.step}\n".encode())
    trainer.run(lambda progress: os.write(told, f"{progress.step}\n".encode()))


def child(cache: Path, folder: Path, known: set[str]) -> tuple[list[int], str | None]:
    """The steps that a child told, and the point at which it was killed unless it came to the end."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            train(cache, folder, known, write)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read) as told:
        lines = [json.loads(line) for line in told]
    status = os.waitpid(process, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("The training ended with an error of its own.")
    return [line for line in lines if isinstance(line, int)], lines[-1] if os.WIFSIGNALED(status) else None


def main() -> None:
    cache, folder = map(Path, sys.argv[1:])
    known, point = set(), ""
    while point is not None:
        steps, point = child(cache, folder / "run", known)
        print(json.dumps({"begun": steps[0], "reached": steps[-1], "point": point}), flush=True)
        known.add(point)
    start(cache, folder / "whole").run(lambda progress: None)


if __name__ == "__main__":
    main()
