"""What an InstructPix2Pix is told of an object: pixel values, queries, contexts, and what training drops."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..flow.guidance import seeded_noise
from ..images import clip_pixel_values, on_white, resize_for_encoder, white_image
from .embedding_optimizer import CONTEXT_TOKENS, AnyOptimizer, EmbeddingOptimizer

CROP, SQUASH, LETTERBOX = "crop", "squash", "letterbox"
FITS = (CROP, SQUASH, LETTERBOX)
AS_PUBLISHED, AS_TRAINED = "as published", "as trained"
PIXEL_SCALES = (AS_PUBLISHED, AS_TRAINED)
ZEROS, BLANK = "zeros", "blank picture"
NULLS = (ZEROS, BLANK)
SMALLEST_OBJECT = 8  # pixels along its longer side


def object_pictures(pictures: Sequence[Image.Image], fit: str = CROP, size: int = 224) -> list[Image.Image]:
    """The `size` x `size` pictures that CLIP sees of objects, on white where they are transparent.

    Args:
        fit: what happens to a picture that is not square: its middle is cropped as published, it is squashed,
            or it is put on a white square.
    Raises:
        ValueError: another fit, or an object too small to show anything or too slender to be cropped.
    """
    if fit not in FITS:
        raise ValueError(f"Expected a fit of {', '.join(FITS)}, got {fit!r}.")
    return [_fitted(on_white(picture), fit, size) for picture in map(_shown, pictures)]


def object_pixels(pictures: list[Image.Image], scale: str = AS_PUBLISHED, size: int = 224) -> Tensor:
    """Pixel values `[B, 3, size, size]` for CLIP of what `object_pictures` gives.

    Args:
        scale: pixels of 0..1 before they are normalized, as the published inference has them, or of 0..255,
            as its training had them.
    Raises:
        ValueError: another scale.
    """
    if scale not in PIXEL_SCALES:
        raise ValueError(f"Expected a scale of {', '.join(PIXEL_SCALES)}, got {scale!r}.")
    return clip_pixel_values(pictures, size, rescale=scale == AS_PUBLISHED)


def _shown(picture: Image.Image) -> Image.Image:
    """The picture itself. Raises ValueError for one that shows nothing."""
    if max(picture.size) < SMALLEST_OBJECT:
        raise ValueError(
            f"Expected an object of at least {SMALLEST_OBJECT} pixels along its longer side, got "
            f"{picture.width}x{picture.height}. Use a larger picture, or a mask over all of the object."
        )
    return picture


def _fitted(picture: Image.Image, fit: str, size: int) -> Image.Image:
    if fit == SQUASH:
        return picture.resize((size, size), Image.Resampling.BICUBIC)
    if fit == LETTERBOX:
        return _boxed(picture, size)
    return resize_for_encoder(picture, size)


def _boxed(picture: Image.Image, size: int) -> Image.Image:
    """All of a picture in the middle of a white square."""
    # Pillow's own function fails for pictures so slender that no pixel is left of their shorter side.
    width, height = (max(1, round(side * size / max(picture.size))) for side in picture.size)
    square = white_image(size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def queries(seed: int, count: int, width: int) -> Tensor:
    """The random queries that a seed stands for, `[count, 77, width]`, drawn on the CPU.

    The published code draws one anew at each call, from whatever the device's generator has come to.
    """
    return seeded_noise(seed, 1, count, CONTEXT_TOKENS, width)[0]


def object_context(optimizer: AnyOptimizer, features: Tensor, seed: int, count: int = 1) -> Tensor:
    """The text contexts `[B, 77, C]` of objects with CLIP tokens `[B, N, E]`.

    The mean over `count` queries: their variance falls with their number.
    """
    if not isinstance(optimizer, EmbeddingOptimizer):
        return optimizer(features)
    # As one long query: keys and values are computed once for all.
    query = queries(seed, count, optimizer.output_dim).flatten(0, 1).to(features)
    context = optimizer(features, query.expand(len(features), -1, -1))
    return context.unflatten(1, (count, CONTEXT_TOKENS)).mean(1)


def null_context(
    optimizer: AnyOptimizer, null: str, blank_features: Tensor | None, seed: int, count: int = 1
) -> Tensor:
    """What stands for no object, `[1, 77, C]`.

    Zeros, as the published inference has it, or what the optimizer makes of the CLIP tokens of the picture of
    which all pixel values are 0, `blank_features [1, N, E]`, as its training had it.

    Raises:
        ValueError: another kind of null, or no tokens of the blank picture.
    """
    if null == ZEROS:
        return torch.zeros(1, CONTEXT_TOKENS, optimizer.output_dim)
    if null != BLANK or blank_features is None:
        raise ValueError(
            f"Expected the null context {ZEROS!r}, or {BLANK!r} with its CLIP tokens, got {null!r} with "
            f"{'no' if blank_features is None else 'some'} tokens."
        )
    return object_context(optimizer, blank_features, seed, count)


class Dropped(NamedTuple):
    """Conditions of a training step, some of them dropped.

    Attributes:
        context: `[B, 77, C]`.
        scene: latents of the scene `[B, C, h, w]`.
    """

    context: Tensor
    scene: Tensor


def drop_conditions(context: Tensor, null: Tensor, scene: Tensor, chances: Tensor, rate: float) -> Dropped:
    """Contexts and scenes `[B, ...]` for training with guidance, by one chance in 0..1 for each sample `[B]`.

    Of all samples, a share of `rate` loses the object, another the scene, and a third one both.
    """
    lost = (chances < 2 * rate).view(-1, 1, 1)
    kept = 1 - ((chances >= rate) & (chances < 3 * rate)).to(scene).view(-1, 1, 1, 1)
    return Dropped(torch.where(lost, null, context), kept * scene)
