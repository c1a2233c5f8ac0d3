"""What Parts2Whole learns from, encoded once: latents of pictures, image tokens, texts, one file for each.

A picture or text that several examples share is encoded for the first alone. Poses and masks are read as they
are, since the pose guider is trained. `pit.training.sample_cache` describes the files.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...files.lock import only_process
from ...files.pictures import PictureError, Skipped, decode_picture
from ...files.records import Models
from ...files.whole import sha256_of
from ...images import clip_pixel_values, on_white
from ...training.sample_cache import digest, models_folder, read_sample, write_sample
from ..parts import MULTIPLE, check_size
from .crops import Box, crop_box, cropped, to_channels
from .layout import Example, PartFiles

RECIPE = "1"  # changes with what is made of the same files
# In fp16, which takes half the room. Latents stay in fp32: their deviations are small, and fp16 loses digits
# of small numbers.
HALF = ("token", "text")
LATENTS = ("latents", "box", "transparent")
SAME_ASPECT = 0.02
SIZE = 512


@dataclass(frozen=True)
class PartsEncoders:
    """The frozen models that encode examples.

    Attributes:
        models: what tells them from others.
        size: side of the square pictures that the image encoder sees.
        latents: pictures `[B, 3, H, W]` in -1..1 -> mean and standard deviation of their latents, unscaled,
            `[B, 8, h, w]`.
        tokens: pixel values `[B, 3, size, size]` -> image tokens `[B, D]`.
        words: lines -> how the UNets read them `[n, 77, D]`.
    """

    models: Models
    size: int
    latents: Callable[[Tensor], Tensor]
    tokens: Callable[[Tensor], Tensor]
    words: Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared.

    Attributes:
        width, height: of all pictures, multiples of `multiple`.
        variants: crops of each picture: the largest in the middle, and random ones.
        seed: of the random ones.
        multiple: pixels along the side of a latent pixel.
    """

    width: int = SIZE
    height: int = SIZE
    variants: int = 4
    seed: int = 0
    multiple: int = field(default=MULTIPLE, repr=False)  # follows from the VAE, which a cache knows

    def check(self) -> None:
        """Raise ValueError for a size or number out of range."""
        check_size(self.width, self.height, self.multiple)
        if self.variants < 1:
            raise ValueError(f"Expected at least 1 variant of each picture, got {self.variants}.")

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


@dataclass(frozen=True)
class EncodedPart:
    """The files of a reference: latents of each variant, image token, label; its mask, if there is one."""

    latents: tuple[Path, ...]
    token: Path
    label: Path
    picture: Path
    mask: Path | None


@dataclass(frozen=True)
class EncodedExample:
    """The files of an example: latents of each variant of the target, caption, and the pose as it is.

    `checked` are files that say that the pose and the masks, as they are, fit their pictures.
    """

    name: str
    target: tuple[Path, ...]
    caption: Path
    pose: Path
    parts: tuple[EncodedPart, ...]
    checked: tuple[Path, ...]


@dataclass(frozen=True)
class Sample:
    """What is read of an example with R references.

    Attributes:
        latents: of the target, mean and standard deviation, unscaled `[8, h, w]`.
        pose: `[3, H, W]` in 0..1.
        text: the caption `[77, D]`; labels `[R, 77, D]`; tokens: of the images `[R, D]`.
        references: mean latents, unscaled `[R, 4, h, w]`; masks `[R, 1, H, W]`.
    """

    latents: Tensor
    pose: Tensor
    text: Tensor
    tokens: Tensor
    references: Tensor
    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class PartsCache:
    """The encoded examples of a dataset.

    Attributes:
        examples: to train on; held_out: to validate with.
        models: the models that encoded them.
        empty: an empty prompt `[77, D]`.
    """

    examples: tuple[EncodedExample, ...]
    held_out: tuple[EncodedExample, ...]
    models: Models
    preparation: Preparation
    empty: Tensor

    @property
    def fingerprint(self) -> str:
        """Identifies the pictures and words in it; `models` identifies the encoders."""
        # The names of files are hashes of what they are made of.
        told = hashlib.sha256(repr(self.preparation).encode())
        for example in self.examples:
            files = [*example.target, example.caption, *example.checked]
            for part in example.parts:
                files += [*part.latents, part.token, part.label]
            told.update("\n".join(path.name for path in files).encode())
        return told.hexdigest()

    def read(self, example: EncodedExample, variants: Sequence[int] | None = None) -> Sample:
        """An example with these variants of its target and of each reference; by default the first ones.

        Raises:
            WeightFileError: a file of the cache is damaged.
            PictureError: a pose or a mask cannot be read any more.
        """
        first, *others = variants or [0] * (1 + len(example.parts))
        latents, box, _ = read_latents(example.target[first])
        chosen = list(zip(example.parts, others, strict=True))
        parts = [(part, *read_latents(part.latents[number])) for part, number in chosen]
        pose = cropped(
            on_white(decode_picture(example.pose)), self.preparation.size, box, Image.Resampling.LANCZOS
        )
        return Sample(
            latents, to_channels(pose), read_one(example.caption, "text"),
            torch.stack([read_one(part.token, "token") for part in example.parts]),
            torch.stack([mean.chunk(2)[0] for _, mean, *_ in parts]),
            torch.stack([read_one(part.label, "text") for part in example.parts]),
            torch.stack([self.mask(part, box, masked) for part, _, box, masked in parts]),
        )

    def mask(self, part: EncodedPart, box: Box, transparent: bool) -> Tensor:
        """The mask of a reference in a crop `[1, H, W]`: from its file, else its transparency, else ones."""
        if part.mask is None and not transparent:
            return torch.ones(1, self.preparation.height, self.preparation.width)
        mask = mask_of(part)
        return to_channels(cropped(mask, self.preparation.size, box, Image.Resampling.BICUBIC))


def read_latents(path: Path) -> tuple[Tensor, Box, bool]:
    """Latents of a crop, which crop it is, and whether the picture is transparent somewhere."""
    state = read_sample(path, LATENTS)
    return state["latents"], tuple(state["box"].tolist()), bool(state["transparent"].any())


def read_one(path: Path, name: str) -> Tensor:
    """The one tensor of a file."""
    return read_sample(path, [name])[name]


def mask_of(part: PartFiles | EncodedPart) -> Image.Image:
    """The mask of a reference that has one, or is transparent."""
    if part.mask is None:
        return decode_picture(part.picture).convert("RGBA").getchannel("A")
    return on_white(decode_picture(part.mask)).convert("L")


def encode_parts(
    examples: Sequence[Example], held_out: Sequence[Example], folder: Path, encoders: PartsEncoders,
    preparation: Preparation, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[PartsCache, list[Skipped]]:
    """Encode what the folder does not hold yet; examples that cannot be used are left out and named.

    Args:
        on_progress: called with the number of examples that are done and the number of all; may raise to
            cancel.
    Raises:
        WeightFileError: a file cannot be written.
        ValueError: a setting is out of range, or no example is left.
        InUseError: another process encodes to the folder.
    """
    preparation.check()
    with only_process(folder):
        encoding = Encoding(models_folder(folder, encoders.models), encoders, preparation)
        empty = read_one(encoding.text(""), "text")
        found: list[EncodedExample | None] = []
        skipped: list[Skipped] = []
        for example in (*examples, *held_out):
            on_progress(len(found), len(examples) + len(held_out))
            try:
                found.append(encoding.example(example))
            except (PictureError, OSError) as error:
                found.append(None)
                skipped.append(Skipped(example.target, f"an example that cannot be used ({error})"))
        on_progress(len(found), len(found))
    kept, shown = (
        tuple(each for each in part if each) for part in (found[:len(examples)], found[len(examples):])
    )
    if not kept:
        raise ValueError(
            f"Expected at least one example that can be used, got none of {len(examples)}: "
            f"{skipped[0].why if skipped else 'there are none'}. Replace the pictures."
        )
    return PartsCache(kept, shown, encoders.models, preparation, empty), skipped


class Encoding:
    """One pass over a dataset, into a folder of these models."""

    def __init__(self, folder: Path, encoders: PartsEncoders, preparation: Preparation):
        self.folder, self.encoders, self.preparation = folder, encoders, preparation
        self.stamps: dict[Path, str] = {}

    def stamp(self, path: Path) -> str:
        """The checksum of a file, which many examples may share."""
        if path not in self.stamps:
            self.stamps[path] = sha256_of(path)
        return self.stamps[path]

    def file(self, *parts: str) -> Path:
        return self.folder / f"{digest([RECIPE, *parts])}.safetensors"

    def example(self, example: Example) -> EncodedExample:
        """The files of an example. Raises PictureError if something of it cannot be used."""
        masked = [part for part in example.parts if part.mask is not None]
        checked = self.check_pose(example), *map(self.check_mask, masked)
        parts = tuple(
            EncodedPart(
                self.latents(part.picture), self.token(part.picture), self.text(part.label), part.picture,
                part.mask,
            )
            for part in example.parts
        )
        target, caption = self.latents(example.target), self.text(example.caption)
        return EncodedExample(example.name, target, caption, example.pose, parts, checked)

    @torch.no_grad()
    def text(self, line: str) -> Path:
        """The file of a text."""
        path = self.file("text", line)
        if not path.is_file():
            write_sample(path, {"text": finite(self.encoders.words([line])[0], "text encoder")}, HALF)
        return path

    @torch.no_grad()
    def token(self, picture: Path) -> Path:
        """The file of the image token of a picture: of all of it, as Encode References sees it."""
        path = self.file("token", self.stamp(picture))
        if not path.is_file():
            try:
                pixels = clip_pixel_values([on_white(decode_picture(picture))], self.encoders.size)
            except ValueError as error:
                raise PictureError(f"{picture}: {error}") from error
            write_sample(path, {"token": finite(self.encoders.tokens(pixels)[0], "image encoder")}, HALF)
        return path

    @torch.no_grad()
    def latents(self, picture: Path) -> tuple[Path, ...]:
        """The files of the latents of a picture, one for each variant."""
        given = self.preparation
        # The first variant does not depend on the seed.
        keys = [[str(given.seed) if number else "", str(number)] for number in range(given.variants)]
        sources = ["latents", str(given.width), str(given.height), self.stamp(picture)]
        files = tuple(self.file(*sources, *key) for key in keys)
        missing = [number for number, file in enumerate(files) if not file.is_file()]
        if missing:
            opened = decode_picture(picture)
            transparent = torch.tensor(float(opened.has_transparency_data))
            shown, aspect = on_white(opened), given.width / given.height
            for number in missing:
                rng = random.Random("/".join([*sources, *keys[number]])) if number else None
                box = crop_box(shown.size, aspect, rng)
                crop = cropped(shown, given.size, box, Image.Resampling.BICUBIC)
                found = self.encoders.latents(to_channels(crop)[None] * 2 - 1)[0]
                write_sample(files[number], {
                    "latents": finite(found, "VAE"), "box": torch.tensor(box), "transparent": transparent,
                })
        return files

    def check_mask(self, part: PartFiles) -> Path:
        """The file that says that a mask fits.

        Raises:
            PictureError: it is of another size than its picture, or empty.
        """
        path = self.file("mask", self.stamp(part.picture), self.stamp(part.mask))
        if path.is_file():
            return path
        mask, picture = mask_of(part), decode_picture(part.picture)
        if mask.size != picture.size:
            raise PictureError(
                f"Expected a mask of {picture.width}x{picture.height} pixels in {part.mask}, as its picture, "
                f"got {mask.width}x{mask.height}. Make it again."
            )
        if not mask.getbbox():
            raise PictureError(f"Expected a mask with some white in {part.mask}, got none. Draw the part.")
        write_sample(path, {"seen": torch.ones(1)})
        return path

    def check_pose(self, example: Example) -> Path:
        """The file that says that a pose fits. Raises PictureError for one of another aspect."""
        path = self.file("pose", self.stamp(example.target), self.stamp(example.pose))
        if path.is_file():
            return path
        pose, target = decode_picture(example.pose), decode_picture(example.target)
        if abs(pose.width * target.height / (pose.height * target.width) - 1) > SAME_ASPECT:
            raise PictureError(
                f"Expected a pose of the aspect of its picture, {target.width}x{target.height}, in "
                f"{example.pose}, got {pose.width}x{pose.height}. Make it again."
            )
        write_sample(path, {"seen": torch.ones(1)})
        return path


def finite(values: Tensor, name: str) -> Tensor:
    """The values. Raises ValueError unless all are finite, which those of a damaged model are not."""
    if not values.isfinite().all():
        raise ValueError(
            f"Expected finite values from the {name}, got NaN or infinity: its file is damaged, or it runs "
            "in a type that is too narrow. Fetch it again, or run it in float32."
        )
    return values
