"""What an Embedding Optimizer learns from, encoded once: CLIP tokens and latents, one file for each version.

`pit.training.sample_cache` describes the files.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...files.lock import only_process
from ...files.pictures import Skipped, open_picture
from ...files.records import Models
from ...files.weights import WeightFileError
from ...files.whole import sha256_of
from ...training.sample_cache import digest, models_folder, read_sample, write_sample
from ..condition import AS_PUBLISHED, CROP, object_pictures, object_pixels
from .augment import cropped, distorted, random_box
from .triplets import Triplet

# In fp16, which takes half the room. Latents stay in fp32: their deviations are small, and fp16 loses digits
# of small numbers.
HALF = ("tokens",)
NAMES = ("tokens", "scene", "target")
LATENT_PIXELS = 8
PUBLISHED_SIZE, SIZE = 224, 512


@dataclass(frozen=True)
class TripletEncoders:
    """The frozen models that encode triplets.

    Attributes:
        models: what tells them from others.
        size: side of the square pictures that the image encoder sees.
        tokens: pixel values `[B, 3, size, size]` -> CLIP tokens `[B, N, E]`.
        latents: pictures `[B, 3, H, W]` in -1..1 -> mean and standard deviation of their latents, unscaled,
            `[B, 2 C, h, w]`.
    """

    models: Models
    size: int
    tokens: Callable[[Tensor], Tensor]
    latents: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Preparation:
    """How triplets are prepared before they are encoded.

    Attributes:
        size: side of the squares that scenes and targets become; published: 224.
        variants: versions of each triplet: the triplet itself, and random ones.
        fit, pixel_scale: of the object's picture, as for Encode Object.
        seed: of the random versions.
        multiple: of which the size must be one: how many pixels the VAE makes a latent of.
    """

    size: int = SIZE
    variants: int = 4
    fit: str = CROP
    pixel_scale: str = AS_PUBLISHED
    seed: int = 0
    multiple: int = LATENT_PIXELS

    def check(self) -> None:
        """Raise ValueError for a size or number out of range."""
        if self.size < self.multiple or self.size % self.multiple:
            raise ValueError(f"Expected a size that is a multiple of {self.multiple}, got {self.size}.")
        if self.variants < 1:
            raise ValueError(f"Expected at least 1 variant of each triplet, got {self.variants}.")


@dataclass(frozen=True)
class EncodedTriplet:
    """CLIP tokens of the object `[N, E]`, latents of scene `[C, h, w]` (mean) and target `[2 C, h, w]`."""

    tokens: Tensor
    scene: Tensor
    target: Tensor


@dataclass(frozen=True)
class TripletCache:
    """The encoded triplets of a dataset.

    Attributes:
        names: of the triplets, in order.
        files: of each triplet, one for each version; the first is that of the triplet itself.
        models: the models that encoded them.
        blank: the CLIP tokens of the picture of which all pixel values are 0, `[N, E]`.
    """

    names: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    models: Models
    blank: Tensor

    @property
    def fingerprint(self) -> str:
        """Identifies the pictures in it and how they were prepared; `models` identifies the encoders."""
        # The name of a file is a hash of what its sample is made of.
        names = "\n".join(path.name for each in self.files for path in each)
        return hashlib.sha256(names.encode()).hexdigest()

    def read(self, index: int, variant: int = 0) -> EncodedTriplet:
        """One version of a triplet, in fp32. Raises WeightFileError if its file is damaged."""
        return EncodedTriplet(**read_sample(self.files[index][variant], NAMES))


def encode_triplets(
    triplets: Sequence[Triplet], folder: Path, encoders: TripletEncoders, preparation: Preparation,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[TripletCache, list[Skipped]]:
    """Encode what the folder does not hold yet; pictures that cannot be used are left out and named.

    Args:
        on_progress: called with the number of triplets that are done and the number of all; may raise to
            cancel.

    Raises:
        WeightFileError: a file cannot be written.
        ValueError: a setting is out of range, or no triplet is left.
        InUseError: another process encodes to the folder.
    """
    preparation.check()
    with only_process(folder):
        place = models_folder(folder, encoders.models)
        blank = blank_tokens(place, encoders)
        files: dict[str, tuple[Path, ...]] = {}
        skipped = []
        for done, triplet in enumerate(triplets):
            on_progress(done, len(triplets))
            try:
                files[triplet.name] = encoded_files(triplet, place, encoders, preparation)
            except WeightFileError:
                raise  # of a file of the cache: not what is wrong with a triplet
            except (ValueError, OSError) as error:
                skipped.append(Skipped(triplet.target, f"its triplet cannot be used ({error})"))
    on_progress(len(triplets), len(triplets))
    if not files:
        raise ValueError(
            f"Expected at least one triplet that can be used, got none of {len(triplets)}: {skipped[0].why}. "
            "Replace the pictures."
        )
    return TripletCache(tuple(files), tuple(files.values()), encoders.models, blank), skipped


@torch.no_grad()
def blank_tokens(folder: Path, encoders: TripletEncoders) -> Tensor:
    """The CLIP tokens of no picture, `[N, E]`, from the folder or for it."""
    path = folder / f"{digest(['blank', str(encoders.size)])}.safetensors"
    if not path.is_file():
        tokens = encoders.tokens(torch.zeros(1, 3, encoders.size, encoders.size))
        write_sample(path, {"tokens": tokens[0]}, HALF)
    return read_sample(path, ["tokens"])["tokens"]


def encoded_files(
    triplet: Triplet, folder: Path, encoders: TripletEncoders, preparation: Preparation
) -> tuple[Path, ...]:
    """The files of a triplet, of which those that are not there are written first."""
    paths = (triplet.scene, triplet.object, triplet.target)
    sources = [str(preparation.size), preparation.fit, preparation.pixel_scale, *map(sha256_of, paths)]
    # The first version does not depend on the seed.
    numbers = range(1, preparation.variants)
    keys = [sources, *([*sources, str(preparation.seed), str(number)] for number in numbers)]
    files = tuple(folder / f"{digest(key)}.safetensors" for key in keys)
    if not all(file.is_file() for file in files):
        scene, shown, target = map(open_picture, paths)
        for number, (key, file) in enumerate(zip(keys, files, strict=True)):
            if not file.is_file():
                rng = random.Random("/".join(key)) if number else None
                sample = encode_triplet(scene, shown, target, encoders, preparation, rng)
                write_sample(file, vars(sample), HALF)
    return files


@torch.no_grad()
def encode_triplet(
    scene: Image.Image, shown: Image.Image, target: Image.Image, encoders: TripletEncoders,
    preparation: Preparation, rng: random.Random | None = None,
) -> EncodedTriplet:
    """Encode a triplet, or with `rng` a random version of it. Raises ValueError for an object too small."""
    seen = object_pictures([shown], preparation.fit, encoders.size)
    pixels = object_pixels(seen, preparation.pixel_scale, encoders.size)
    placing = {}
    if rng is not None:
        placing = {"box": random_box(rng), "flip": rng.random() < 0.5}
        pixels = distorted(pixels[0], rng)[None]
    squares = [cropped(each, preparation.size, **placing) for each in (scene, target)]
    latents = encoders.latents(torch.stack([signed(each) for each in squares]))
    tokens = encoders.tokens(pixels)
    # Of the scene the mean alone, unscaled, as the model sees it when it is used.
    return EncodedTriplet(tokens[0], latents[0].chunk(2)[0], latents[1])


def signed(picture: Image.Image) -> Tensor:
    """A picture as the VAE takes it, `[3, H, W]` in -1..1."""
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 127.5 - 1
