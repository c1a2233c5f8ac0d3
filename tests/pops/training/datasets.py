"""Small datasets in the published layout of each mode, and encoders that count what they are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pit.pops.training.cache import OperatorCache, OperatorEncoders, encode_operator_dataset
from pit.pops.training.layouts import read_operator_dataset
from tests.pops.tiny import WIDTH

SIDE = 64


def picture(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Blocks of color."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def square_mask(size: int = SIDE, border: int = 8) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[border:-border, border:-border] = 255
    return mask


def write_texture(folder: Path, number: int) -> None:
    own = folder / f"chair_on_grass_{number}"
    own.mkdir(parents=True)
    for index, name in enumerate(("base", "gold_1", "moss_2")):
        picture(10 * number + index).save(own / f"{name}.jpg")
    Image.fromarray(square_mask(40, 4)).save(own / "mask.png")
    (own / "box.json").write_text(json.dumps({"x1": 10, "y1": 12, "x2": 50, "y2": 52}))


def write_scene(folder: Path, number: int) -> None:
    picture(number).save(folder / f"dog_{number}.jpg")
    picture(100 + number).save(folder / f"dog_{number}_inpainted.jpg")
    np.save(folder / f"dog_{number}_inpainted.npy", square_mask())


def write_union(folder: Path, number: int) -> None:
    picture(number).save(folder / f"cat_and_hat_{number}.jpg")
    for index in (0, 1):
        cut = picture(200 + 2 * number + index, (30, 20)).convert("RGBA")
        cut.putalpha(Image.fromarray(square_mask(30, 5)[:20]))
        cut.save(folder / f"cat_and_hat_{number}_OBJ_{index}.png")
    (folder / f"cat_and_hat_{number}.json").write_text("{}")


def write_instruct(folder: Path, number: int) -> None:
    picture(number).save(folder / f"old_chair_on_grass_{number}.jpg")


def write_clothes(folder: Path, number: int) -> None:
    picture(number, (200, 200)).save(folder / f"person_{number}.jpg")
    labels = np.zeros((200, 200), np.uint8)
    labels[:90, :90], labels[100:, :90], labels[:50, 100:150] = 4, 6, 3  # the last one is too small
    Image.fromarray(labels).save(folder / f"person_{number}_mask.png")


WRITE = {
    "texture": write_texture, "scene": write_scene, "union": write_union, "instruct": write_instruct,
    "clothes": write_clothes,
}


def write_dataset(folder: Path, mode: str, count: int = 4, randoms: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        WRITE[mode](folder, number)
    for number in range(randoms):
        (folder / "randoms").mkdir(exist_ok=True)
        picture(1000 + number).save(folder / "randoms" / f"{number}.jpg")
    return folder


class Counted:
    """Encoders whose embeddings follow from colors and letters; `pictures` counts what they have seen."""

    def __init__(self, width: int = WIDTH, seed: int = 0):
        self.matrix = torch.randn(48, width, generator=torch.Generator().manual_seed(seed))
        self.width, self.pictures, self.lines = width, 0, []

    def encode(self, pixels: Tensor) -> Tensor:
        self.pictures += len(pixels)
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1) @ self.matrix

    def words(self, lines: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        self.lines += lines
        states = [
            torch.randn(2 + len(line.split()), self.width, generator=torch.Generator().manual_seed(
                sum(map(ord, line)))) for line in lines
        ]
        return states, torch.stack([state.mean(dim=0) for state in states])

    def encoders(self, words: bool = True) -> OperatorEncoders:
        return OperatorEncoders("tiny", 32, self.encode, self.words if words else None)


def encode(folder: Path, mode: str, cache: Path, counted: Counted | None = None, **options) -> OperatorCache:
    """The cache of a dataset of which nothing is skipped."""
    dataset = read_operator_dataset(folder, mode)
    assert not dataset.skipped
    encoders = (counted or Counted()).encoders()
    found, skipped = encode_operator_dataset(dataset, cache, encoders, **options)
    assert not skipped
    return found
