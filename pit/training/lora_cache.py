"""What an IP-LoRA learns from, encoded once: latents, text and image tokens, a file for each sample.

A file is named by a hash of all that it depends on, pictures, words, size and models, so that nothing stale
is ever read, more samples only add files, and an interrupted run goes on where it was.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..images import clip_pixel_values
from ..weight_files import CheckpointError, read_state, write_state
from .dataset import PictureError, Skipped, open_picture
from .encode import TokenEncoder, fingerprints
from .files import sha256_of
from .lora_dataset import LoraSample

NOTHING = ""


@dataclass(frozen=True)
class RenderEncoders:
    """The frozen models that a renderer is conditioned by.

    Attributes:
        names: of the files of VAE and text encoders, with what tells one version from another.
        latents: pictures `[B, 3, H, W]` in -1..1 -> mean and standard deviation of the latents, scaled as
            the UNet sees them, `[B, 8, h, w]`.
        text: captions -> context `[B, N, C]` and pooled vector `[B, P]`; of an empty one whatever guidance
            leads away from.
        tokens: of the IP-Adapter.
    """

    names: tuple[str, ...]
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
    """The samples of a dataset, encoded.

    Attributes:
        names: of the samples, in order.
        files: of each.
        empty: what stands for no words and no picture; its latents are zeros.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    empty: EncodedSample

    @property
    def fingerprint(self) -> str:
        """Of all that is in it."""
        return hashlib.sha256("\n".join(path.name for path in self.files).encode()).hexdigest()

    def read(self, index: int) -> EncodedSample:
        """One sample, in fp32. Raises CheckpointError if its file is damaged."""
        return read_sample(self.files[index])


def encode_lora_dataset(
    samples: Sequence[LoraSample], folder: Path, encoders: RenderEncoders, size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LoraCache, list[Skipped]]:
    """Encode what the folder does not hold yet; pictures that cannot be read are left out and named.

    Args:
        size: of the square that pictures are brought to: scaled by their shorter side, then cropped to the
            centre. The published trainer does neither, and fails at a batch of pictures of two sizes.
        on_progress: is told how many samples are done, and of how many; may raise to cancel.

    Raises:
        CheckpointError: a file cannot be written.
        ValueError: no sample is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = [*encoders.names, *(str(each) for each in fingerprints(encoders.tokens)), str(size)]
    empty = folder / f"{digest(models)}.safetensors"
    if not empty.is_file():
        write_sample(empty, encode_nothing(encoders, size))
    names, files, skipped = [], [], []
    for done, sample in enumerate(samples):
        on_progress(done, len(samples))
        try:
            # Before hashing, so that a file which is gone is named as one that cannot be read.
            sources = [sha256_of(sample.target), sha256_of(sample.reference), sample.caption]
            path = folder / f"{digest(models + sources)}.safetensors"
            if not path.is_file():
                write_sample(path, encode_sample(sample, encoders, size))
        except (PictureError, OSError) as error:
            skipped.append(Skipped(sample.target, f"it or its reference cannot be read ({error})"))
            continue
        names.append(sample.name)
        files.append(path)
    on_progress(len(samples), len(samples))
    if not files:
        raise ValueError(f"None of the {len(samples)} samples can be read: {skipped[0].why}.")
    return LoraCache(tuple(names), tuple(files), read_sample(empty)), skipped


def digest(parts: Sequence[str]) -> str:
    """A name for a file that depends on all of these."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:32]


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
    """What SDXL is told of sizes, as published: the trained one as the original, and no crop, `[6]`."""
    return torch.tensor([size, size, 0, 0, size, size], dtype=torch.float32)


def write_sample(path: Path, sample: EncodedSample) -> None:
    """Write a sample in fp16, but latents, whose spread is small, in fp32."""
    state = {name: value.half() if name in ("context", "pooled", "tokens") else value.float()
             for name, value in vars(sample).items()}
    write_state(path, {name: value.cpu() for name, value in state.items()}, {})


def read_sample(path: Path) -> EncodedSample:
    state, _ = read_state(path)
    missing = {"latents", "context", "pooled", "tokens", "time_ids"} - state.keys()
    if missing:
        raise CheckpointError(f"{path} is no encoded sample: no {', '.join(sorted(missing))}. Remove it.")
    return EncodedSample(**{name: value.float() for name, value in state.items()})
