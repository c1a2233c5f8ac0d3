"""A data set in the published layout, and models that encode it without any file."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from pit.parts2whole.training.cache import PartsCache, PartsEncoders, Preparation, encode_parts
from pit.parts2whole.training.layout import read_parts_dataset

WIDTH, SIZE = 24, 64
"""Of the texts and image tokens that the golden model reads, and of the pictures."""
LABELS = ("face", "shoes", "upper body clothes")


def write_people(folder: Path, count: int = 4, held_out: int = 0, size: tuple[int, int] = (80, 80)) -> Path:
    """Colored squares on colored grounds; the examples have one to three references."""
    lists = {"train": range(count), "test": range(count, count + held_out)}
    for name, numbers in lists.items():
        lines = [json.dumps(write_person(folder, number, size)) for number in numbers]
        if lines:
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_person(folder: Path, number: int, size: tuple[int, int]) -> dict[str, object]:
    """The files of one example; returns its line."""
    rng = np.random.default_rng(number)
    parts = LABELS[:1 + number % 3]
    line = {
        "target_id": str(number), "reference_id": f"r{number}", "caption": f"person {number}",
        "target": f"images/{number}.png", "structure": {"densepose": f"densepose/{number}.png"},
        "appearance": {}, "mask": {},
    }
    paths = [line["target"], line["structure"]["densepose"]]
    for label in parts:
        line["appearance"][label] = f"{label}/{number}_rgb.png"
        line["mask"][label] = f"{label}/{number}_mask.png"
        paths.append(line["appearance"][label])
    for path in paths:
        save(folder / path, rng.integers(0, 255, 3), size)
    for path in line["mask"].values():
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).rectangle((10, 10, 50, 50), 255)
        mask.save(folder / path)
    return line


def save(path: Path, color: np.ndarray, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, tuple(map(int, color)))
    ImageDraw.Draw(picture).rectangle((10, 10, 50, 50), tuple(255 - int(value) for value in color))
    picture.save(path)


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def write_lines(folder: Path, lines: list) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")


class Counting:
    """Encoders that count what they are given."""

    def __init__(self, version: str = "1"):
        self.pictures = self.images = self.lines = 0
        self.encoders = PartsEncoders(
            {"tiny models": version}, 28, self.latents, self.tokens, self.words
        )

    def latents(self, pictures):
        self.pictures += len(pictures)
        mean = functional.avg_pool2d(pictures, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1)
        return torch.cat([mean, torch.full_like(mean, 0.01)], dim=1)

    def tokens(self, pixels):
        self.images += len(pixels)
        return functional.pad(pixels.mean((2, 3)), (0, WIDTH - 3))

    def words(self, lines):
        self.lines += len(lines)
        seeds = (sum(map(ord, line)) for line in lines)
        return torch.stack([
            torch.randn(77, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ])


def encoded(folder: Path, count: int = 4, held_out: int = 0, encoders=None, **settings) -> PartsCache:
    """A cache of examples, whose pictures are written unless they are there."""
    if not (folder / "people").is_dir():
        write_people(folder / "people", count, held_out)
    dataset = read_parts_dataset(folder / "people")
    preparation = Preparation(**{"width": SIZE, "height": SIZE, "variants": 2} | settings)
    given = (encoders or Counting()).encoders
    return encode_parts(dataset.examples, dataset.held_out, folder / "cache", given, preparation)[0]
