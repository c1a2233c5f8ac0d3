"""What the reference UNet writes, and what of it the denoising UNet reads (arXiv 2404.15267, section 3.3).

The published code lets every layer attend to all tokens of all references, masked ones as zeros. A zero token
has the key 0 and the value 0: n of them are the same as one whose logit is log(n) instead of 0. So the tokens
that are not masked are gathered, and two zero tokens stand for all others: the same numbers, for less work.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .attention import ReferenceTokens

LATENT_PIXEL = 8  # pixels along the side of a latent pixel, in Stable Diffusion
FACTORS = [2**halvings for halvings in range(12)]  # pixels along the side of a token
# Logits up to 16 are rounded by up to 1/32 in bfloat16, which has 8 bits.
MOST_ROUNDING = 0.035


class Written(NamedTuple):
    """What the reference UNet has written in one block.

    Attributes:
        features: of each reference `[R, N, C]`, masked as the denoising UNet reads them.
        mask: `[R, N]`, from 0 to 1.
    """

    features: Tensor
    mask: Tensor


def token_grid(size: tuple[int, int], tokens: int) -> tuple[int, int]:
    """Rows and columns of the grid in which `tokens` tokens cover a picture of `size` (height, width).

    Raises:
        ValueError: no UNet makes that many tokens of such a picture.
    """
    # A UNet halves its grid and rounds up, so that the number of tokens alone does not tell how often. Where
    # two factors give the same number, a side is one token long, and the grids are the same.
    for factor in FACTORS:
        rows, columns = (-(-side // factor) for side in size)
        if rows * columns == tokens:
            return rows, columns
    raise ValueError(
        f"Expected a mask whose {size[1]}x{size[0]} pixels divide into {tokens} tokens, got one of another "
        "size than the picture. Give it the size of the picture that is encoded."
    )


def token_mask(mask: Tensor, tokens: int) -> Tensor:
    """Pixel masks `[R, 1, H, W]` on the grid of a layer, grown by one token to every side: `[R, tokens]`.

    This is how far a reference is read: the preview of a mask shows the same. Errors as in `token_grid`.
    """
    small = functional.interpolate(mask.float(), size=token_grid(mask.shape[-2:], tokens), mode="nearest")
    # Sums of the nine tokens around, as published: soft edges become harder, too.
    grown = functional.conv2d(small, small.new_ones(1, 1, 3, 3), padding=1)
    return grown.clamp(0, 1).flatten(1)


def seen_mask(mask: Tensor, latent_pixel: int = LATENT_PIXEL) -> Tensor:
    """Pixel masks `[R, 1, H, W]` as the finest layers see them, in the same size: what a preview shows."""
    rows, columns = (-(-side // latent_pixel) for side in mask.shape[-2:])
    grown = token_mask(mask, rows * columns).unflatten(1, (1, rows, columns))
    scaled = grown.repeat_interleave(latent_pixel, -2).repeat_interleave(latent_pixel, -1)
    return scaled[..., :mask.shape[-2], :mask.shape[-1]]


def masked(features: Tensor, mask: Tensor, rounded: bool = False) -> Written:
    """What a block has computed of each reference `[R, N, C]`, as it is written under masks `[R, 1, H, W]`.

    Args:
        rounded: round to float16, as the published code does whatever the type of the run.
    """
    weights = token_mask(mask.to(features.device), features.shape[1])
    kept = features * weights[..., None].to(features)
    return Written(kept.half().to(kept) if rounded else kept, weights)


def folded(features: Tensor, mask: Tensor, weights: Tensor | None = None) -> ReferenceTokens:
    """All tokens of a layer's references, with those that are masked folded into two zero tokens.

    Args:
        features: masked features `[B, T, C]`, the tokens of all references one after another.
        mask: `[B, T]`.
        weights: how often each token counts `[B, T]`, 1 each if None. At 0 it is as if it were not there.
    """
    weights = torch.ones_like(mask) if weights is None else weights
    kept = (mask > 0) & (weights > 0)
    # Rows of a batch can keep different numbers of tokens: all get as many as the longest, and the bias
    # -inf takes the surplus ones out again.
    order = kept.int().argsort(dim=1, descending=True, stable=True)[:, :int(kept.sum(1).max())]
    tokens = features.gather(1, order[..., None].expand(-1, -1, features.shape[-1]))
    bias = weights.where(kept, 0).gather(1, order).log()
    zeros = weights.where(mask == 0, 0).sum(1, keepdim=True)
    if zeros.any():
        tokens = functional.pad(tokens, (0, 0, 0, 2))
        bias = torch.cat([bias, log_of_two(zeros)], 1)
    return ReferenceTokens(tokens, bias if bias.any() else None)


def log_of_two(counts: Tensor) -> Tensor:
    """The logits of two zero tokens that together count as often as `counts [B, 1]` says, `[B, 2]`."""
    # Attention in half precision rounds logits, too: the weight of thousands of tokens in one would be up to
    # 3% off. The first is a number of bfloat16, and so not rounded; the second is the small rest.
    first = (counts.log() - MOST_ROUNDING).bfloat16().to(counts)
    return torch.cat([first, (counts - first.exp()).log()], 1)


def reading(
    written: Mapping[str, Written], strengths: Sequence[float] | Tensor | None = None, pictures: int = 1
) -> dict[str, ReferenceTokens]:
    """What each block of the denoising UNet reads.

    Args:
        written: by block, with the references of one picture after those of the other.
        strengths: one for each reference of a picture: how often it counts, 1 each if None. At 2 it counts
            as if it were given twice, at 0 as if it were not there. As a tensor `[pictures, R]`, each picture
            has its own.
        pictures: how many pictures have references of their own.
    Raises:
        ValueError: another number of strengths than of references, or one that is negative or not finite.
    """
    return {block: _read(each, strengths, pictures) for block, each in written.items()}


def _read(written: Written, strengths: Sequence[float] | Tensor | None, pictures: int) -> ReferenceTokens:
    features, mask = (each.unflatten(0, (pictures, -1)) for each in written)
    weights = None
    if strengths is not None:
        if not isinstance(strengths, Tensor):
            check_strengths(strengths, features.shape[1])
            strengths = mask.new_tensor(strengths)[None]
        weights = strengths[..., None].expand(mask.shape).flatten(1)
    return folded(features.flatten(1, 2), mask.flatten(1), weights)


def check_strengths(strengths: Sequence[float], references: int) -> None:
    """Raise ValueError unless there is one for each reference, finite and not negative."""
    if len(strengths) != references:
        raise ValueError(f"Expected a strength for each of {references} references, got {len(strengths)}.")
    for strength in strengths:
        if not (math.isfinite(strength) and strength >= 0):
            raise ValueError(f"Expected the strength of a reference to be 0 or more, got {strength}.")
