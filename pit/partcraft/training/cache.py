"""What part words are learned from, worked out once: latents, masks and codes, a file for each version.

`pit.training.sample_cache` describes the files.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...encoders.dino import dino_pixels, picture_sizes
from ...files.lock import only_process
from ...files.pictures import PictureError, Skipped, open_picture
from ...files.records import Models
from ...files.weights import WeightFileError
from ...files.whole import sha256_of
from ...images import is_plain
from ...messages import ShortError
from ...training.sample_cache import digest, models_folder, read_sample, write_sample
from ..discovery import PartClusters, codes_of, find_parts
from .pictures import Coding, Pictures

LATENT_PIXELS = 8
KEYS = ("foreground_background", "coarse", "fine")


@dataclass(frozen=True)
class PartEncoders:
    """The frozen models that encode pictures.

    Attributes:
        models: what tells them from others.
        latents: pictures `[B,3,H,W]` in -1..1 -> mean and deviation of their latents, as the UNet sees them,
            `[B,2 C,h,w]`.
        features: what DINOv2 is shown, `[B,3,h,w]` -> what it sees, `[B,d,h,w]`.
        image_size: of the pictures that DINOv2 is made for.
    """

    models: Models
    latents: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    image_size: int


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared before they are encoded.

    Attributes:
        size: side of the squares that they become.
        variants: versions of each picture: its middle, and random cuts.
        mirrored: whether each version is encoded mirrored as well.
        seed: of the random cuts.
        multiple: of which the size must be one: how many pixels the VAE makes a latent of.
    """

    size: int
    variants: int = 2
    mirrored: bool = False
    seed: int = 0
    multiple: int = LATENT_PIXELS

    def check(self) -> None:
        """Raise ValueError for a size or number out of range."""
        if self.size < self.multiple or self.size % self.multiple:
            raise ValueError(f"Expected a size that is a multiple of {self.multiple}, got {self.size}.")
        if self.variants < 1:
            raise ValueError(f"Expected at least 1 variant of each picture, got {self.variants}.")


@dataclass(frozen=True)
class PartSample:
    """A version of a picture, and perhaps its mirror image: V of them.

    Attributes:
        latents: mean and deviation, `[V,2 C,h,w]`.
        time_ids: the sizes and the cut that SDXL is told, `[V,6]`.
        labels: the part of each place, unmirrored, `[h,w]`.
        codes: of all parts as their clusters tell them, `[M]`.
    """

    latents: Tensor
    time_ids: Tensor
    labels: Tensor
    codes: Tensor

    def shown(self, mirrored: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Latents `[2 C,h,w]`, time ids `[6]` and labels `[h,w]` of the picture or of its mirror image."""
        labels = self.labels.flip(-1) if mirrored else self.labels
        return self.latents[int(mirrored)], self.time_ids[int(mirrored)], labels.long()


@dataclass(frozen=True)
class PartCache:
    """The encoded pictures of a folder.

    Attributes:
        names: of the pictures, in order.
        files: of each picture, one for each version; the first is that of its middle.
        models: the models that encoded them.
        coding: what their codes stand for.
        absent: the code of a part that a picture lacks, in the files.
    """

    names: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    models: Models
    coding: Coding
    absent: int

    @property
    def fingerprint(self) -> str:
        """Identifies the pictures in it, how they were prepared, and their codes."""
        # The name of a file is a hash of what its sample is made of.
        names = [path.name for each in self.files for path in each]
        classes = [str(self.coding.classes.get(name, "")) for name in self.names]
        return hashlib.sha256("\n".join([*names, *classes]).encode()).hexdigest()

    def read(self, index: int, variant: int = 0) -> PartSample:
        """One version of a picture. Raises WeightFileError if its file is damaged."""
        path = self.files[index][variant]
        return PartSample(**read_sample(path, [field.name for field in fields(PartSample)]))

    def codes(self, index: int, sample: PartSample) -> Tensor:
        """The codes of a picture's parts, `[M]`."""
        return self.coding.codes(self.names[index], sample.codes.long(), self.absent)


def encode_pictures(
    pictures: Pictures, folder: Path, encoders: PartEncoders, clusters: PartClusters, coding: Coding,
    preparation: Preparation, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[PartCache, list[Skipped]]:
    """Encode what the folder does not hold yet; pictures that cannot be used are left out and named.

    Args:
        on_progress: called with the number of pictures that are done and the number of all; may raise to
            cancel.

    Raises:
        WeightFileError: a file cannot be written.
        ValueError: a setting is out of range, the clusters are those of another encoder, or no picture is
            left.
        InUseError: another process encodes to the folder.
    """
    preparation.check()
    models = {**encoders.models, "parts": stamp_of(clusters)}
    files: dict[str, tuple[Path, ...]] = {}
    skipped = []
    total = len(pictures.paths)
    with only_process(folder):
        place = models_folder(folder, models)
        for done, (name, path) in enumerate(zip(pictures.names, pictures.paths, strict=True)):
            on_progress(done, total)
            try:
                files[name] = encoded_files(path, place, encoders, clusters, preparation)
            except WeightFileError:
                raise  # of a file of the cache: not what is wrong with a picture
            except (PictureError, OSError) as error:
                skipped.append(Skipped(path, f"it cannot be used ({error})"))
    on_progress(total, total)
    if not files:
        raise ShortError(
            f"Expected at least one picture that can be used, got none of {total}: {skipped[0].why}. Replace "
            "the pictures."
        )
    return PartCache(tuple(files), tuple(files.values()), models, coding, clusters.absent), skipped


def stamp_of(clusters: PartClusters) -> str:
    """What tells clusters from others: all of their numbers, but not their names."""
    sums = hashlib.sha256(f"{clusters.foreground} {clusters.background_part}".encode())
    for key in KEYS:
        value = getattr(clusters, key).detach().float().cpu().contiguous()
        sums.update(f"{list(value.shape)}".encode() + value.numpy().tobytes())
    return sums.hexdigest()


def encoded_files(
    path: Path, folder: Path, encoders: PartEncoders, clusters: PartClusters, preparation: Preparation
) -> tuple[Path, ...]:
    """The files of a picture, of which those that are not there are written first.

    Raises:
        PictureError: the picture cannot be used.
    """
    sources = [sha256_of(path), str(preparation.size), str(preparation.mirrored)]
    # The first version does not depend on the seed.
    numbers = range(1, preparation.variants)
    keys = [sources, *([*sources, str(preparation.seed), str(number)] for number in numbers)]
    files = tuple(folder / f"{digest(key)}.safetensors" for key in keys)
    if all(file.is_file() for file in files):
        return files
    picture = open_picture(path)
    if is_plain(picture):
        raise PictureError(f"Expected a picture with parts, got one of one color in {path}. Remove it.")
    codes = codes_of_picture(picture, encoders, clusters)
    for number, (key, file) in enumerate(zip(keys, files, strict=True)):
        if not file.is_file():
            rng = random.Random("/".join(key)) if number else None
            write_sample(file, vars(encode_picture(picture, codes, encoders, clusters, preparation, rng)))
    return files


@torch.no_grad()
def codes_of_picture(picture: Image.Image, encoders: PartEncoders, clusters: PartClusters) -> Tensor:
    """The codes of a picture's parts, `[M]`, seen at the scale at which the clusters were found.

    Raises:
        PictureError: a side is too long.
    """
    try:
        pixels = dino_pixels([picture], *picture_sizes(encoders.image_size))
    except ShortError as error:
        raise PictureError(str(error)) from error
    return codes_of(find_parts(encoders.features(pixels), clusters), clusters)[0]


@torch.no_grad()
def encode_picture(
    picture: Image.Image, codes: Tensor, encoders: PartEncoders, clusters: PartClusters,
    preparation: Preparation, rng: random.Random | None = None,
) -> PartSample:
    """Encode the middle of a picture, or with `rng` a random cut of it."""
    size = preparation.size
    square, (left, top), width = cut(picture, size, rng)
    # As published, the masks are those of what is seen of the cut alone, all of it.
    seen = picture_sizes(encoders.image_size)[1]
    labels = find_parts(encoders.features(dino_pixels([square], seen, seen)), clusters).labels[0]
    pixels = torch.from_numpy(np.array(square)).movedim(-1, 0).float()[None] / 127.5 - 1
    views = [pixels, pixels.flip(-1)] if preparation.mirrored else [pixels]
    # In the mirror, the cut lies as far from the other side. The published trainer forgets the width.
    lefts = [left, width - size - left][:len(views)]
    time_ids = [[picture.height, picture.width, top, each, size, size] for each in lefts]
    latents = torch.cat([encoders.latents(view) for view in views])
    return PartSample(latents, torch.tensor(time_ids), labels, codes)


def cut(
    picture: Image.Image, size: int, rng: random.Random | None
) -> tuple[Image.Image, tuple[int, int], int]:
    """A square of a picture, where it begins, and how wide the picture was made for it.

    Args:
        rng: decides where; None takes the middle.
    """
    shorter = min(picture.size)
    width, height = (max(size, round(size * side / shorter)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.LANCZOS)
    room = width - size, height - size
    left, top = (each // 2 if rng is None else rng.randint(0, each) for each in room)
    return resized.crop((left, top, left + size, top + size)), (left, top), width
