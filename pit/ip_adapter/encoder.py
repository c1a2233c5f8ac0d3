"""From pictures to IP+ tokens: a frozen image encoder with its resampler, and its fingerprint."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files.records import Fingerprint, adapter_stamp
from ..files.weights import WeightFileError
from ..images import clip_pixel_values
from .files import load_ip_adapter

FINGERPRINT_NUMBERS = 32


@dataclass(frozen=True)
class TokenEncoder:
    """A frozen image encoder with its resampler.

    Attributes:
        name: the image encoder's file, for messages.
        adapter: the IP-Adapter's file, for messages.
        size: side of its square pictures, in pixels.
        features: pixel values `[B, 3, size, size]` float32 on the CPU -> penultimate features `[B, N, E]`.
        resample: features -> IP+ tokens `[B, 16, D]`.
        stamp: tells the IP-Adapter from others, see `pit.files.records.adapter_stamp`; "" = unknown.
    """

    name: str
    adapter: str
    size: int
    features: Callable[[Tensor], Tensor]
    resample: Callable[[Tensor], Tensor]
    stamp: str = ""

    @torch.no_grad()
    def tokens(self, pixel_values: Tensor) -> Tensor:
        """`[B, 3, size, size]` -> `[B, 16, D]` float32 on the CPU."""
        return self.resample(self.features(pixel_values)).float().cpu()


@torch.no_grad()
def fingerprints(encoder: TokenEncoder) -> tuple[Fingerprint, Fingerprint]:
    """Fingerprints of the encoder, by its features, and the adapter, by its tokens, for one test picture."""
    # By what the models answer, not by their bytes: the same weights come in several formats and precisions.
    features = encoder.features(clip_pixel_values([probe_picture(encoder.size)], encoder.size))
    tokens = encoder.resample(features)
    adapter = replace(fingerprint(encoder.adapter, tokens), stamp=encoder.stamp)
    return fingerprint(encoder.name, features), adapter


def fingerprint(name: str, answer: Tensor) -> Fingerprint:
    """The fingerprint of a model by what it answers to something fixed, such as the `probe_picture`."""
    return Fingerprint(name, _projected(answer))


def probe_picture(size: int) -> Image.Image:
    """Waves in three directions: something to see in every place and color."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(9 * x + 4 * y * y), np.cos(17 * x * y + 2 * x), np.sin(23 * y - 5 * x)]
    pixels = np.rint(127.5 + 127.5 * np.stack(waves, axis=-1))
    return Image.fromarray(pixels.astype(np.uint8))


def _projected(values: Tensor) -> tuple[float, ...]:
    flat = values.float().cpu().flatten().double().numpy()
    # The legacy generator: numpy promises that its stream never changes. Division by the root of the length
    # gives numbers of the size of the values, however many values there are.
    directions = np.random.RandomState(0).standard_normal((FINGERPRINT_NUMBERS, len(flat)))
    return tuple((directions @ flat / len(flat) ** 0.5).tolist())


def load_encoder(
    vision: Path, adapter: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TokenEncoder:
    """IP-Adapter-plus: penultimate features of CLIP (no post layernorm), then the resampler.

    Args:
        vision: a folder with `config.json` and the weights, or one weight file in transformers' keys, as
            in ComfyUI's `models/clip_vision`. If a single file has no `config.json` beside it, the sizes are
            read off the weights: ViT-L, ViT-H and ViT-bigG.
        adapter: an IP-Adapter-plus file.
        dtype: the type in which both run.

    Raises:
        WeightFileError: a file is missing, damaged or of another kind, or the two do not match.
    """
    from ..training.clip_vision import load_clip_vision  # transformers' models take a third of a second

    model = load_clip_vision(vision)
    resampler = load_ip_adapter(adapter).resampler
    width, wanted = model.config.hidden_size, resampler.proj_in.in_features
    if width != wanted:
        raise WeightFileError(
            f"{adapter}: expected image features of width {wanted}, got width {width} from {vision}. Use the "
            "CLIP vision model that the IP-Adapter was made for (for the published one ViT-H, of width 1280)."
        )
    model, resampler = (module.to(device, dtype).requires_grad_(False) for module in (model, resampler))

    # The output of the last layer but one, without CLIP's final layer norm, is what the published resampler
    # was trained on.
    def features(pixel_values: Tensor) -> Tensor:
        return model(pixel_values.to(device, dtype), output_hidden_states=True).hidden_states[-2]

    stamp = adapter_stamp(resampler.state_dict())
    return TokenEncoder(vision.name, adapter.name, model.config.image_size, features, resampler, stamp)
