"""Triplets to train on, and models that encode them without any file."""
from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from pit.object_insertion.training.cache import Preparation, TripletEncoders, encode_triplets
from pit.object_insertion.training.triplets import COLUMNS, read_triplets

SIZE, TOKENS, WIDTH = 64, 17, 32
"""Of the latents' pictures, and of the tokens that the tiny optimizer of the golden data reads."""


def write_triplets(folder, count=6, size=(40, 32)):
    """A red square, elsewhere in each scene; the scenes have as many colors."""
    for column in COLUMNS:
        (folder / column).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene = Image.new("RGB", size, (30 * number % 256, 90, 255 - 30 * number % 256))
        target = scene.copy()
        ImageDraw.Draw(target).rectangle((number, number, number + 11, number + 11), "red")
        shown = target.crop((number, number, number + 12, number + 12))
        for column, picture in zip(COLUMNS, (scene, shown, target), strict=True):
            picture.save(folder / column / f"{number}.png")
    return folder


def tiny_encoders(version="1"):
    """Latents are small pictures, tokens the colors in parts of a picture."""
    def tokens(pixels):
        colors = functional.adaptive_avg_pool2d(pixels, 4).flatten(2).mT
        colors = torch.cat([colors.mean(1, keepdim=True), colors], dim=1)
        return colors.repeat(1, 1, 11)[..., :WIDTH]

    def latents(pictures):
        mean = functional.avg_pool2d(pictures, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1)
        return torch.cat([mean, torch.full_like(mean, 0.01)], dim=1)

    return TripletEncoders({"tiny models": version}, 28, tokens, latents)


def encoded(folder, count=6, **settings):
    """A cache of triplets."""
    dataset = read_triplets(write_triplets(folder / "pictures", count))
    preparation = Preparation(**{"size": SIZE, "variants": 2} | settings)
    return encode_triplets(dataset.triplets, folder / "cache", tiny_encoders(), preparation)[0]
