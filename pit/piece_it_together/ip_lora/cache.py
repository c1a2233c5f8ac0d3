"""What an IP-LoRA learns from, encoded once: latents, text and image tokens, one file for each sample.

`pit.training.sample_cache` describes the files.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...files.lock import only_process
from ...files.pictures import PictureError, Skipped, open_picture
from ...files.records import Models
from ...files.whole import sha256_of
from ...images import clip_pixel_values
from ...ip_adapter.encoder import TokenEncoder, fingerprints
from ...training.sample_cache import digest, models_folder, read_sample, write_sample
from .dataset import LoraSample

NOTHING = ""
# In fp16, which takes half the room. Latents stay in fp32: their deviations are small, and fp16 loses digits
# of small numbers.
HALF = ("context", "pooled", "tokens")


@dataclass(frozen=True)
class RenderEncoders:
    """The frozen models that encode for a renderer.

    Attributes:
        stamps: of VAE and text encoders; each changes with any weight of its model and with nothing else.
        latents: pictures `[B, 3, H, W]` in -1..1 -> mean and standard deviation of the latents, scaled as
            the UNet sees them, `[B, 8, h, w]`.
        text: captions -> context `[B, N, C]` and pooled vector `[B, P]`; for an empty caption, what guidance
            leads away from.
        tokens: the encoder of image tokens.
    """

    stamps: Mapping[str, str]
    latents: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], tuple[Tensor, Tensor]]
    tokens: TokenEncoder


@dataclass(frozen=True)
class EncodedSample:
    """One sample: latents `[8, h, w]`, context `[N, C]`, pooled `[P]`, tokens `[16, D]`, time ids `[6]`."""

    latents: Tensor
    context: Tensor
    pooled: Tensor
    tokens: Tensor
    time_ids: Tensor


@dataclass(frozen=True)
class LoraCache:
    """The encoded samples of a dataset.

    Attributes:
        names: of the samples, in order.
        files: the file of each sample.
        models: the models that encoded them.
        empty: what stands for no words and no picture; its latents are zeros.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    models: Models
    empty: EncodedSample

    @property
    def fingerprint(self) -> str:
        """Identifies the pictures and words in it; `models` identifies the encoders."""
        # The name of a file is a hash of what its sample is made of.
        return hashlib.sha256("\n".join(path.name for path in self.files).encode()).hexdigest()

    def read(self, index: int) -> EncodedSample:
        """One sample, in fp32. Raises WeightFileError if its file is damaged."""
        return read_encoded(self.files[index])


def encode_lora_dataset(
    samples: Sequence[LoraSample], folder: Path, encoders: RenderEncoders, size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LoraCache, list[Skipped]]:
    """Encode what the folder does not hold yet; pictures that cannot be read are left out and named.

    Args:
        size: side of the square that pictures become: scaled by their shorter side, then center-cropped. The
            published trainer does neither and fails on a batch with pictures of two sizes.
        on_progress: called with the number of samples that are done and the number of all; may raise to
            cancel.

    Raises:
        WeightFileError: a file cannot be written.
        ValueError: no sample is left.
        InUseError: another process encodes to the folder.
    """
    models = models_of(encoders)
    with only_process(folder):
        return _encoded(samples, models_folder(folder, models), models, encoders, size, on_progress)


def _encoded(
    samples: Sequence[LoraSample], folder: Path, models: Models, encoders: RenderEncoders, size: int,
    on_progress: Callable[[int, int], None],
) -> tuple[LoraCache, list[Skipped]]:
    """The samples in a folder of these models, encoded if they are not there yet."""
    # The size is in the names, so that one folder can hold the samples at several sizes.
    empty = folder / f"{digest([str(size)])}.safetensors"
    if not empty.is_file():
        write_encoded(empty, encode_nothing(encoders, size))
    names, files, skipped = [], [], []
    for done, sample in enumerate(samples):
        on_progress(done, len(samples))
        try:
            # Inside the try: a file that is gone is then skipped and named like one that cannot be decoded.
            sources = [sha256_of(sample.target), sha256_of(sample.reference), sample.caption]
            path = folder / f"{digest([str(size), *sources])}.safetensors"
            if not path.is_file():
                write_encoded(path, encode_sample(sample, encoders, size))
        except (PictureError, OSError) as error:
            skipped.append(Skipped(sample.target, f"it or its reference cannot be read ({error})"))
            continue
        names.append(sample.name)
        files.append(path)
    on_progress(len(samples), len(samples))
    if not files:
        raise ValueError(
            f"Expected at least one sample that can be read, got none of {len(samples)}: {skipped[0].why}. "
            "Replace the pictures."
        )
    return LoraCache(tuple(names), tuple(files), models, read_encoded(empty)), skipped


@torch.no_grad()
def encode_sample(sample: LoraSample, encoders: RenderEncoders, size: int) -> EncodedSample:
    """Encode one sample. Raises PictureError if a picture cannot be read."""
    target, reference = open_picture(sample.target), open_picture(sample.reference)
    square = ImageOps.fit(target, (size, size), Image.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(size, size, 3)
    latents = encoders.latents(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1)[0]
    context, pooled = encoders.text([sample.caption])
    tokens = encoders.tokens.tokens(clip_pixel_values([reference], encoders.tokens.size))[0]
    return EncodedSample(latents, context[0], pooled[0], tokens, time_ids(size))


@torch.no_grad()
def encode_nothing(encoders: RenderEncoders, size: int) -> EncodedSample:
    """What stands for no words and no picture."""
    context, pooled = encoders.text([NOTHING])
    side = encoders.tokens.size
    tokens = encoders.tokens.tokens(torch.zeros(1, 3, side, side))[0]
    return EncodedSample(torch.zeros(1), context[0], pooled[0], tokens, time_ids(size))


def time_ids(size: int) -> Tensor:
    """What SDXL is told about sizes, as published: the training size as the original one, no crop, `[6]`."""
    return torch.tensor([size, size, 0, 0, size, size], dtype=torch.float32)


def models_of(encoders: RenderEncoders) -> Models:
    """What distinguishes these encoders from others."""
    vision, adapter = fingerprints(encoders.tokens)
    return {**encoders.stamps, "image encoder": vision, "IP-Adapter": adapter}


def write_encoded(path: Path, sample: EncodedSample) -> None:
    """Write a sample. Raises WeightFileError if it cannot be written."""
    write_sample(path, vars(sample), HALF)


def read_encoded(path: Path) -> EncodedSample:
    """A sample, in fp32. Raises WeightFileError if its file is damaged."""
    return EncodedSample(**read_sample(path, [field.name for field in fields(EncodedSample)]))
