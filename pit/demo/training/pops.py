"""Training the creatures' pOps operators on embeddings of pictures, with the trainer of `pit.training`."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...files.weights import load_states, save_states
from ...images import clip_pixel_values
from ...ip_adapter.encoder import fingerprint, probe_picture
from ...pops.files import OperatorFile, read_operator, save_operator
from ...pops.training.recipes import RECOMMENDED, Sizes
from ...pops.training.start import begin
from ...training.recipes import RunSettings
from ...training.sample_cache import digest, models_folder
from ..drawing.instructions import PHRASES
from ..models.operator_files import OPERATORS, operator_file
from ..models.operators import GUIDANCE, word_states
from ..models.sizes import ENCODER_SIZE
from ..models.text import TextEncoders
from ..models.vision import CreatureVision
from .encoder import pixel_values
from .export import METADATA, half
from .pops_examples import (
    CHANGES,
    THINGS,
    THINGS_DRAWN,
    CreatureExamples,
    Rows,
    before_views,
    drawn_views,
    part_counts,
)
from .stage import Run, run_trainer

# Two bytes for each weight: all five take 7.7 MB.
SIZES = Sizes(hidden_dim=128, num_layers=3, num_heads=4)
RECIPE = replace(RECOMMENDED, steps=10_000, batch=192)
SAVE_EVERY = 500
ROWS = 16_000  # of the data set, at most
CHUNK = 500  # pictures between two files, which is what an interruption loses at most
EMBEDDED_AT_ONCE = 256
DRAWING = "1"  # to be raised with any change of what is drawn for the same seed


def train_pops(
    run: Run, data: Rows, vision: CreatureVision, text: TextEncoders, weights: Path, workers: int = 1
) -> None:
    """Train every operator in its own folder within that of the run, and write it to the folder `weights`.

    Args:
        data: the drawn data set.
        text: of the renderer; **pOps Instruct** reads the same.
        workers: processes that draw.
    """
    for mode in OPERATORS:
        write_operator(train_operator(run, mode, data, vision, text, workers), weights / operator_file(mode))


def train_operator(
    run: Run, mode: str, data: Rows, vision: CreatureVision, text: TextEncoders | None = None,
    workers: int = 1,
) -> Path:
    """Train one of them, or resume its training; returns its file.

    Args:
        text: only read for the mode "instruct".
    """
    examples = encoded(run, mode, data, vision, text, workers)
    recipe = replace(RECIPE, precision=run.recipe_precision)
    settings = RunSettings(run.folder / "pops" / mode, run.seed, SAVE_EVERY, SAVE_EVERY)
    trainer = begin(examples, SIZES, recipe, settings, cpu=run.device.type == "cpu")
    return run_trainer(trainer, mode)


def write_operator(trained: Path, path: Path) -> None:
    """Write a trained operator in fp16."""
    file = read_operator(trained)
    save_operator(path, OperatorFile(file.config, half(file.state), file.mode, GUIDANCE), METADATA)


# Examples -------------------------------------------------------------------------------------------------


def encoded(
    run: Run, mode: str, data: Rows, vision: CreatureVision, text: TextEncoders | None, workers: int
) -> CreatureExamples:
    """The examples of an operator: drawn once, and embedded again only if the encoder is another one."""
    count, vision = min(ROWS, len(data["labels"])), vision.to(run.device)
    with torch.no_grad():
        answer = vision.embed(clip_pixel_values([probe_picture(ENCODER_SIZE)], ENCODER_SIZE).to(run.device))
    models = {"image encoder": fingerprint("creature encoder", answer)}
    stamp = digest([DRAWING, mode, str(run.seed), str(count)])
    path = models_folder(pops_folder(run, "embedded"), models) / f"{mode}_{stamp}.pt"
    if not path.exists():
        embedding = Embedding(run, data, vision, count, workers)
        save_states(path, embedding.parts() if mode == "clothes" else embedding.changes(mode))
    words: tuple[Tensor, ...] = ()
    if mode == "instruct":
        words = tuple(word_states(text, PHRASES))
        models["text encoder"] = fingerprint("creature text encoder", torch.cat(words))
    names = tuple(f"creature {number:06d}" for number in range(count))
    return CreatureExamples(mode, load_states(path), names, models, stamp, words)


def pops_folder(run: Run, *inside: str) -> Path:
    """The folder of the operators within that of a run, or one inside of it; made if there is none."""
    folder = run.folder.joinpath("pops", *inside)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Embedding:
    """One pass of the image encoder over what an operator learns from.

    Attributes:
        count: of rows.
        workers: processes that draw.
    """

    run: Run
    data: Rows
    vision: CreatureVision
    count: int
    workers: int

    def parts(self) -> dict[str, Tensor]:
        """For the mode "clothes": parts, how many there are, and the wholes."""
        return {
            "parts": self.stored("part_views"), "counts": part_counts(self.data["part_kinds"][:self.count]),
            "after": self.stored("views"),
        }

    def changes(self, mode: str) -> dict[str, Tensor]:
        """For the other modes; see `CreatureExamples`."""
        rows = self.drawn(mode, self.count) | {"before": self.before(mode)}
        if mode == "scene":
            return rows
        told = [CHANGES[mode](self.run.seed, index, self.count) for index in range(self.count)]
        given = torch.tensor([each.given for each in told])
        if mode == "union":
            return rows | {"given": self.drawn(THINGS, THINGS_DRAWN)["given"][given]}
        undone = torch.tensor([each.undone for each in told])
        if mode == "texture":
            patches = self.stored("patches")
            given, undone = patches[given], patches[undone]
        return rows | {"given": given, "undone": undone}

    def before(self, mode: str) -> Tensor:
        """Embeddings of what is to be changed, `[N, 2, 256]`."""
        return torch.cat([
            self.embedded(before_views(mode, self.data, self.run.seed, rows, self.count))
            for rows in chunks(self.count)
        ])

    def stored(self, name: str) -> Tensor:
        """Embeddings of the views of an array of the data set, `[N, ..., 256]`."""
        views = self.data[name]
        return torch.cat([self.embedded(views[rows.start:rows.stop]) for rows in chunks(self.count)])

    def drawn(self, what: str, count: int) -> dict[str, Tensor]:
        """Embeddings of what is drawn for an operator, `[N, 256]` each."""
        views = drawn_chunks(self.run, what, count, self.count, self.workers)
        found = [{name: self.embedded(each) for name, each in chunk.items()} for chunk in views]
        return {name: torch.cat([chunk[name] for chunk in found]) for name in found[0]}

    @torch.no_grad()
    def embedded(self, views: np.ndarray) -> Tensor:
        """uint8 `[..., 64, 64, 3]` -> embeddings `[..., 256]` on the CPU."""
        flat = views.reshape(-1, *views.shape[-3:])
        parts = (flat[start:start + EMBEDDED_AT_ONCE] for start in range(0, len(flat), EMBEDDED_AT_ONCE))
        with self.run.autocast():
            found = [self.vision.embed(pixel_values(part).to(self.run.device)) for part in parts]
        return torch.cat(found).float().cpu().reshape(*views.shape[:-3], -1)


def chunks(count: int) -> list[range]:
    """Rows, some hundreds at a time."""
    return [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def drawn_chunks(run: Run, what: str, drawn: int, count: int, workers: int) -> Iterator[Rows]:
    """The pictures that are drawn for an operator, of rows 0 to `drawn - 1`, some hundreds at a time.

    Each chunk is kept in a file, so that an interruption loses no more than one for each process.
    """
    folder = pops_folder(run, "views")
    files = {
        rows: folder / f"{digest([DRAWING, what, str(run.seed), str(count), str(rows)])}.pt"
        for rows in chunks(drawn)
    }
    missing = [rows for rows, path in files.items() if not path.exists()]
    with ProcessPoolExecutor(workers) as pool, tqdm(total=drawn, desc=f"{what}, drawn", mininterval=5) as bar:
        bar.update(drawn - sum(map(len, missing)))
        views = pool.map(drawn_views, repeat(what), repeat(run.seed), missing, repeat(count))
        for rows, found in zip(missing, views, strict=True):
            save_states(files[rows], {name: torch.from_numpy(each) for name, each in found.items()})
            bar.update(len(rows))
    for path in files.values():
        yield {name: views.numpy() for name, views in load_states(path).items()}
